"""Keys and the content of rows as canaries through every error path, log, display, status and file of a run; and
nothing that acts on a terminal reaches one.

Rows belong in data/, dead/ and the ledger's segments. Keys belong nowhere. tests/runtime/canary_support.py looks for
both in every file and everything that is printed, with escapes undone.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canary_support import (
    ACTS,
    ECHOES,
    ROW,
    UNREACHABLE,
    Teller,
    dead_codes,
    generate,
    openai,
    row_text,
    secrets_in,
    service,
    write,
)

from penstock.ledger.layout import Layout
from penstock.ledger.owner import this_process

pytestmark = pytest.mark.process


# ---------------------------------------------------------------- rows that die

GOOD = [generate()]
LINE = json.dumps({"id": 1, "q": row_text(1)}) + "\n"
DEADLY: dict[str, tuple[str, dict[str, Any]]] = {
    "refused by the engine": ("refused", {"steps": GOOD, "model": {"engine_options": {"fail_on": "number 3;"}}}),
    "crash of the engine": ("engine_crash", {"steps": GOOD, "model": {"engine_options": {"crash_on": "number 3;"}}}),
    "out of memory": ("engine_crash", {"steps": GOOD, "model": {"engine_options": {"oom_over_tokens": 3}}, "rows": 2}),
    "a hang": (
        "engine_crash",
        {"steps": GOOD, "model": {"progress_timeout_s": 1, "engine_options": {"hang_on": "number 3;"}}, "rows": 4},
    ),
    "a bad line": ("bad_json", {"steps": GOOD, "source": LINE + f'{{"q": "{ROW}" {ROW}\n' + f"{ROW}\n[1, 2]\n"}),
    "a truncated line": ("bad_json", {"steps": GOOD, "source": LINE + LINE[:30]}),
    "a key twice": ("bad_json", {"steps": GOOD, "source": LINE + f'{{"{ROW}": 1, "{ROW}": 2}}\n'}),
    "no UTF-8": ("bad_encoding", {"steps": GOOD, "source": LINE.encode() + f'{{"q": "{ROW}'.encode() + b'\xff"}\n'}),
    "NaN": ("bad_number", {"steps": GOOD, "source": LINE + f'{{"id": NaN, "q": "{ROW}"}}\n'}),
    "a giant number": ("bad_number", {"steps": GOOD, "source": LINE + f'{{"id": {"9" * 400}, "q": "{ROW}"}}\n'}),
    "too deep": ("too_deep", {"steps": GOOD, "source": LINE + '{"q": ' + "[" * 99 + f'"{ROW}"' + "]" * 99 + "}\n"}),
    "another type": (
        "type_mismatch",
        {"steps": GOOD, "source": LINE + f'{{"id": "{ROW}", "q": "x"}}\n',
         "schema": {"id": "int64", "q": "string"}},
    ),
    "a bad record": ("bad_record", {"steps": GOOD, "file": "rows.csv", "source": f"id,q\n1,a\n2,{ROW},{ROW},{ROW}\n"}),
    "a field that is not there": (
        "template_missing_field", {"steps": [generate("{{ q }}{{ other }}")], "source": LINE + '{"other": 1}\n'},
    ),
    "null in a template": (
        "template_missing_field",
        {"steps": [generate("{{ id + 1 }}")], "source": LINE + f'{{"id": null, "q": "{ROW}"}}\n'},
    ),
    "an undefined name of the row": ("template_missing_field", {"steps": [generate("{{ {}[q] }}")]}),
    "a template that fails on a value": ("template_error", {"steps": [generate("{{ q + 1 }}")]}),
    "a format of the template": ("template_error", {"steps": [generate("{{ '%d' % q }}")]}),
    "a filter of the template": ("template_error", {"steps": [generate("{{ q | dictsort }}")]}),
    "a SecurityError": ("template_error", {"steps": [generate("{{ (q ~ '{0.__class__}').format(q) }}")]}),
    "an attribute that is not safe": ("template_error", {"steps": [generate("{{ q.__class__.mro() }}")]}),
    "bad sampling": ("bad_sampling", {"steps": [generate(temperature="{{ q }}")]}),
    "sampling out of range": ("bad_sampling", {"steps": [generate(top_p="{{ id + 1 }}{{ q }}")]}),
    "a filter that fails": ("template_error", {"steps": [{"filter": {"expr": "q + 1"}}, *GOOD]}),
    "an exception with the row": (
        "function_error",
        {"steps": [{"map": {"function": "OWN:f"}}], "functions": "def f(row):\n    raise ValueError(f'bad {row}')\n"},
    ),
    "an exception with a part of the row": (
        "function_error",
        {"steps": [{"map": {"function": "OWN:f"}}], "functions": "def f(row):\n    return int(row['q'][2:30])\n"},
    ),
    "a KeyError of the row's text": (
        "function_error",
        {"steps": [{"map": {"function": "OWN:f"}}], "functions": "def f(row):\n    return {}[row['q']]\n"},
    ),
    "an exception with the row in another form": (
        "function_error",
        {"steps": [{"map": {"function": "OWN:f"}}],
         "functions": "import json\ndef f(row):\n    raise OSError(json.dumps(json.dumps(row)).upper())\n"},
    ),
    "an exception that can't be shown": (
        "function_error",
        {"steps": [{"map": {"function": "OWN:f"}}],
         "functions": "class E(Exception):\n    def __str__(self):\n        raise self\n\n"
                      "def f(row):\n    raise E(row)\n"},
    ),
    "a chain of exceptions": (
        "function_error",
        {"steps": [{"map": {"function": "OWN:f"}}],
         "functions": "def f(row):\n    try:\n        int(row['q'])\n    except ValueError as e:\n"
                      "        raise RuntimeError(row['q']) from e\n"},
    ),
    "sys.exit with the row": (
        "function_error",
        {"steps": [{"map": {"function": "OWN:f"}}], "functions": "def f(row):\n    sys.exit(row['q'])\n"},
    ),
    "a filter function": (
        "function_error",
        {"steps": [{"filter": {"function": "OWN:f"}}], "functions": "def f(row):\n    raise ValueError(row['q'])\n"},
    ),
    "an expand function": (
        "function_error",
        {"steps": [{"expand": {"function": "OWN:f"}}], "functions": "def f(row):\n    raise ValueError(row['q'])\n"},
    ),
    "a result that is no row": (
        "function_result",
        {"steps": [{"map": {"function": "OWN:f"}}], "functions": "def f(row):\n    return row['q']\n"},
    ),
    "a result that can't be sent": (
        "function_result",
        {"steps": [{"map": {"function": "OWN:f"}}], "functions": "def f(row):\n    return {row['q']: object()}\n"},
    ),
    "a function that takes too long": (
        "function_timeout",
        {"steps": [{"map": {"function": "OWN:f", "timeout_s": 0.3}}], "rows": 1,
         "functions": "import time\ndef f(row):\n    time.sleep(30)\n"},
    ),
    "a result of another type": (
        "encode_error",
        {"steps": [{"map": {"function": "OWN:f"}}],
         "functions": "def f(row):\n    return {'x': row['q'] if row['id'] > 3 else row['id']}\n"},
    ),
    "a function that ends its process": (
        "engine_crash",
        {"steps": [{"map": {"function": "OWN:f", "workers": 1}}], "rows": 1,
         "functions": "def f(row):\n    sys.stderr.flush()\n    os._exit(3)\n"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEADLY)
def test_a_dead_row_is_told_without_its_row(name: str, tell: Teller, tmp_path: Path) -> None:
    code, made = DEADLY[name]
    tell.given = write(tmp_path, **made)
    tell.run(code=(0, 1))
    assert code in dead_codes(tell), tell.said
    tell.look()


@pytest.mark.parametrize("display", ["plain", "jsonl", "none"])
def test_a_service_that_repeats_what_it_was_told(display: str, tell: Teller, tmp_path: Path) -> None:
    """Each of ECHOES at a step of its own; dead/ has none of the service's echoes either, since keys may be in them."""
    steps = [
        generate(f"{{{{ q }}}} at={number};", f"a{number}", name=f"step-{number}") for number in range(len(ECHOES))
    ]
    rows = (json.dumps({"q": row_text(number, f" echo={number};")}) + "\n" for number in range(len(ECHOES)))
    with service() as url:
        model = openai(url, concurrency=8)
        tell.given = write(tmp_path, steps, models={"writer": model}, source="".join(rows))
        tell.run(code=(0, 1), display=display)
    assert {"refused", "too_long", "engine_error"} <= dead_codes(tell)
    for row in dead_messages(tmp_path):
        assert secrets_in(row) == [], row
    tell.look()


def dead_messages(folder: Path) -> list[str]:
    import pyarrow.dataset as ds

    files = sorted((folder / "out" / "dead").glob("*.parquet"))
    return [message for file in files for message in ds.dataset(file).to_table()["message"].to_pylist()]


# ---------------------------------------------------------------- names

NAMES = [f"../../evil{ACTS}", "a/b", "x" * 300, ".hidden", "two\nlines", "[bold]x[/bold]", "a b", "python"]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_any_name_writes_into_its_folder(name: str, tell: Teller, tmp_path: Path) -> None:
    step = {"generate": {"model": name, "prompt": "{{ q }}", "output": "answer", "name": "step"}}
    model = {"ref": "mock:test", "replicas": 1, "engine_options": {"crash_on": "number 3;"}}
    functions = "def f(row):\n    if row['id'] == 2:\n        raise ValueError('no')\n    return {}\n"
    steps = [{"map": {"function": "OWN:f", "name": "map", "workers": 1}}, step]
    file = f"rows {name[:100].replace('/', '_')}.jsonl"
    tell.given = write(tmp_path, steps, models={name: model}, functions=functions, file=file)
    tell.run(code=(0, 1))
    assert {"engine_crash", "function_error"} <= dead_codes(tell)
    logs = sorted(path.name for path in (tmp_path / "out" / "logs").iterdir())
    steps_log = "python-steps-0.log" if name == "python" else "python-0.log"
    assert len(logs) == 3 and {"coordinator.log", steps_log} < set(logs), logs
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {*tell.given, "out", "tmp"}
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {
        "data", "dead", "logs", "run.json", "summary.json", ".penstock",
    }  # fmt: skip
    tell("plan", "p.yaml")
    tell("plan", "p.yaml", "--json")
    tell.look()


# ---------------------------------------------------------------- ends of runs

ENDS: dict[str, dict[str, Any]] = {
    "too many dead": {"steps": GOOD, "model": {"engine_options": {"fail_on": "number"}}, "max_dead": 1},
    "a function that can't be imported": {
        "steps": [{"map": {"function": "OWN:f"}}], "functions": f"raise ValueError('{ROW}')\n",
    },
    "a model that is none": {"steps": GOOD, "models": {"writer": {"ref": f"./no{ACTS}", "engine": "transformers"}}},
    "an engine that does not load": {
        "steps": GOOD, "models": {"writer": {"ref": f"no{ACTS}/such", "engine": "transformers"}},
    },
    "a source that is none": {"steps": GOOD, "source": b"\x00\x01\x02", "file": "rows.parquet"},
    "a service that is away": {"steps": GOOD, "models": {"writer": openai(UNREACHABLE, start_patience_s=0.1)}},
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_run_is_told_without_rows(name: str, tell: Teller, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tell.given = write(tmp_path, **{"rows": 150, **ENDS[name]})
    if name == "a function that can't be imported":
        # What a module says when it is imported is the user's own; only where it acts on a terminal it is ours.
        (tmp_path / next(each for each in tell.given if each.startswith("own"))).write_text(
            f"raise ValueError({ACTS!r})"
        )
    tell.run()
    tell.look()


PRINTS = """
def f(row):
    if row["id"] == 1:
        print(row, flush=True)
        try:
            int(row["q"])
        except ValueError:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)
    return {}
"""


def test_what_a_function_prints_stays_in_its_log(tell: Teller, tmp_path: Path) -> None:
    """The user's own prints go to the replica's log; no display and no other file repeats them."""
    tell.given = write(tmp_path, [{"map": {"function": "OWN:f", "workers": 1}}], rows=3, functions=PRINTS)
    tell.run(code=(0, 1))
    tell.given.add("python-0.log")
    assert "engine_crash" in dead_codes(tell)
    tell.look()


def test_another_run_is_refused_without_rows(tell: Teller, tmp_path: Path) -> None:
    tell.given = write(tmp_path, GOOD)
    tell.run(code=0)
    write(tmp_path, [generate("{{ q }} more")], file="other.jsonl")
    tell.given.add("other.jsonl")
    tell.run(code=2)
    tell.look()


def test_an_owner_elsewhere_is_told_safely(tell: Teller, tmp_path: Path) -> None:
    import msgspec

    tell.given = write(tmp_path, GOOD)
    tell.run("--limit", "2", code=0)
    ahead = msgspec.structs.replace(this_process(9), host=f"far{ACTS}", heartbeat=time.time() + 90_000)
    Layout(tmp_path / "out").owner.write_bytes(msgspec.json.encode(ahead))
    tell.run(code=2)
    assert "--takeover" in tell.said
    tell.look()


# ---------------------------------------------------------------- displays, as processes


def on_terminal(folder: Path, *arguments: str, stop: Callable[[], bool] | None = None) -> str:
    """What a command writes to a terminal."""
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "penstock.cli", *arguments]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=its, stderr=its, env=environment)
    os.close(its)
    written = b""
    while True:
        if stop is not None and stop():
            process.send_signal(signal.SIGINT)
            stop = None
        try:
            piece = os.read(mine, 65536)
        except OSError:  # the other end is closed
            break
        written += piece
        if not piece:
            break
    os.close(mine)
    process.wait(60)
    return written.decode("utf-8", "replace")


def forbidden(text: str) -> list[str]:
    """What rows and names would do to the terminal; the views' own colours are none of it."""
    return [repr(each) for each in ("\x1b]0;", "\x07", "\x9b", "\u202e", "\x7f", "\x1b]8") if each in text]


@pytest.mark.parametrize("command", ["run", "status", "plan", "preview", "interrupted"])
def test_a_terminal_gets_nothing_of_the_data(command: str, tell: Teller, tmp_path: Path) -> None:
    slow = {"ms_per_row": 300} if command in ("run", "interrupted") else {}
    model = {"ref": "mock:test", "replicas": 1, "engine_options": {"fail_on": "number 3;", **slow}}
    name = f"[bold]m{ACTS}"
    step = {"generate": {"model": name, "prompt": "{{ q }}", "output": f"an{ACTS}swer", "name": "s"}}
    tell.given = write(tmp_path, [step], models={name: model}, file=f"rows{ACTS}.jsonl")
    if command == "status":
        tell.run(code=(0, 1))
    arguments = {
        "status": ("status", "out"), "plan": ("plan", "p.yaml"), "preview": ("preview", "p.yaml", "-n", "4"),
    }.get(command, ("run", "p.yaml"))  # fmt: skip
    begun = lambda: (tmp_path / "out" / "run.json").exists()  # noqa: E731
    said = on_terminal(tmp_path, *arguments, stop=begun if command == "interrupted" else None)
    assert len(said) > 50 and "Traceback" not in said, said
    assert forbidden(said) == [], said
    assert secrets_in(said, rows=command != "preview") == []
    tell.look()
