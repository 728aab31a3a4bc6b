"""A notebook, as people write them: functions of its cells run on workers, whatever threads the kernel has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.process

CELLS = (
    """
import threading, time
import pandas as pd
import penstock as ps

threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()  # as a progress bar leaves one
prices = pd.DataFrame({"fruit": ["apple", "pear"], "price": [2, 3]})
""",
    """
def price_of(fruit):
    return int(prices.set_index("fruit").loc[fruit, "price"])

class Discount:
    def __init__(self, share):
        self.share = share

    def __call__(self, row):
        return {"reduced": price_of(row["fruit"]) * self.share}

def at_most(limit):
    return lambda row: row["reduced"] <= limit
""",
    """
rows = ps.read([{"fruit": "apple"}, {"fruit": "pear"}] * 20)
rows = rows.map(lambda row: {"price": price_of(row["fruit"])}, columns=["price"])
rows = rows.map(Discount(0.5), columns=["reduced"])
rows = rows.generate(ps.Model("mock:x"), prompt="{{ fruit }} {{ reduced }}", output="answer")
result = rows.filter(at_most(1.0)).write("out").run(display="none")
print(result.exit_code, result.summary["rows"])
""",
    """
import pyarrow.parquet as pq, glob
table = pq.read_table(sorted(glob.glob("out/data/*.parquet")))
print(table.num_rows, set(table["price"].to_pylist()), set(table["reduced"].to_pylist()))
""",
    """
import sqlite3
connection = sqlite3.connect(":memory:")
try:
    rows.map(lambda row: {"n": connection.total_changes}, columns=["n"]).write("refused").run(display="none")
except ps.ConfigError as error:
    print(error)
""",
)


def test_functions_of_a_notebook_run_on_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in CELLS])
    client = NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    assert said[2].startswith("0 "), said
    assert said[3].split(maxsplit=1) == ["20", "{2} {1.0}\n"]
    assert "it uses 'connection', a sqlite3.Connection" in said[4]


SCRIPT = """
import threading, time
import penstock as ps

threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
KNOWN = {"a": 1, "b": 2}

def number_of(row):
    return {"number": KNOWN[row["letter"]]}

rows = ps.read([{"letter": "a"}, {"letter": "b"}]).map(number_of, columns=["number"])
print(rows.filter(lambda row: row["number"] > 1).write("out").run(display="none").exit_code)
"""


def test_functions_of_a_script_need_no_main_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=dict(os.environ)
    )
    assert (ended.stdout, ended.returncode) == ("0\n", 0), ended.stderr
