"""What `run` raises in Python where the run is not done, so that a script does not continue with half of its rows."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import penstock as ps

pytestmark = pytest.mark.process


class Absent:
    """No worker can import it."""

    def __reduce__(self) -> tuple[object, ...]:
        return importlib.import_module, ("absent",)


def rows_with(folder: Path, **options: object) -> ps.Rows:
    rows = ps.read([{"n": number, "text": "poison" if number % 2 else "fine"} for number in range(20)])
    model = ps.Model("mock:writer", engine_options=options)
    return rows.generate(model, prompt="{{ text }} {{ n }}", output="answer").write(folder / "out")


def test_too_many_dead_rows(tmp_path: Path) -> None:
    rows = rows_with(tmp_path, fail_on="poison")
    with pytest.raises(ps.TooManyDead, match=r"max_dead.*penstock status .*lists the dead rows") as raised:
        rows.run(display="none", max_dead=0.1)
    error = raised.value
    assert error.exit_code == error.result.exit_code == ps.ExitCode.TOO_MANY_DEAD
    assert error.result.facts.dead_examples[0].code == "refused"
    returned = rows.run(display="none", max_dead=0.1, check=False)
    assert returned.exit_code == ps.ExitCode.TOO_MANY_DEAD
    assert rows.run(display="none", max_dead=0.5).exit_code == ps.ExitCode.DONE, "dead rows within the limit"


def test_a_run_that_fails(tmp_path: Path) -> None:
    absent = Absent()
    rows = ps.read([{"n": 1}]).map(lambda row: {"m": absent}, columns=["m"])
    with pytest.raises(ps.RunFailed, match=r"failed after .*; 0 rows finished and kept: run it again") as raised:
        rows.write(tmp_path / "out").run(display="none")
    assert "No module named 'absent'" in raised.value.result.facts.reason


SCRIPT = """
import penstock as ps
model = ps.Model("mock:writer", engine_options={"ms_per_row": 300})
rows = ps.read([{"n": n} for n in range(400)]).generate(model, prompt="{{ n }}", output="a").write("out")
try:
    rows.run(display="plain")
except ps.Interrupted as error:
    print("interrupted", int(error.exit_code), error.result.facts.status)
print("after")
rows.run(display="none", limit=5)
"""


def test_an_interrupted_run(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    script = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert script.stderr is not None
    for line in script.stderr:
        if "running" in line or "ready" in line:
            break
    script.send_signal(signal.SIGINT)
    out, _ = script.communicate(timeout=60)
    assert out == "interrupted 75 stopped\nafter\n"
