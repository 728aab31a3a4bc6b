"""Functions of a user that can't be imported, raise, hang, crash, or return nonsense."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bad_input_support as support
import pytest
from bad_input_support import PIPELINE, Here, questions, with_steps, write
from run_support import dead, output


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("absent_module_x:f", "", "p.yaml:5: 'function': can't import 'absent_module_x'"),
        ("own_near:add", "def added(row): return {}", "'own_near' has no function 'add'; did you mean 'added'?"),
        ("own_syntax:f", "def f(row) return row", "importing 'own_syntax' for the function 'own_syntax:f' failed"),
        ("own_raises:f", "raise RuntimeError('no device')", "RuntimeError: no device"),
        ("own_exits:f", "import sys; sys.exit(9)", "failed: SystemExit: 9"),
        ("own_value:f", "f = 3", "'own_value:f' is 3, not a function"),
        ("own_async:f", "async def f(row): return {}", "'own_async:f' is async; steps call synchronous functions"),
        ("own.f", "", "p.yaml:5: 'function': expected module:function, for instance"),
    ],
)
def test_a_function_that_can_not_be_used(here: Here, function: str, code: str, words: str) -> None:
    write(here.folder, with_steps({"map": {"function": function}}).replace("'", ""))
    text = PIPELINE[: PIPELINE.index("  - generate")] + f'  - map: {{function: "{function}"}}\nsink: {{path: out}}\n'
    (here.folder / "p.yaml").write_text(text)
    (here.folder / f"{function.partition(':')[0]}.py").write_text(code + "\n")
    if not code:
        (here.folder / f"{function.partition(':')[0]}.py").unlink()
    here.run().refuses(words)


ODD_FUNCTIONS = """
import ctypes, os, sys, time

def odd(row):
    match row["question"]:
        case "q1": raise ValueError("boom")
        case "q2": sys.exit(3)
        case "q3": raise KeyboardInterrupt
        case "q4": return None
        case "q5": return [1, 2]
        case "q6": return {1: 2}
        case "q7": return {"x": object()}
        case "q8": time.sleep(1000)
        case "q9": return {"question": "changed"}
        case "q10": return {"x": "text"}
        case "q11": return {"x": 2 ** 200}
        case "q12": input()
    print("noise " * 1000)
    sys.stderr.write("more noise " * 1000)
    row["question"] = "changed here only"
    return {"x": 1}
"""


@pytest.mark.process
def test_a_function_that_misbehaves_costs_its_rows_alone(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(ODD_FUNCTIONS)
    write(tmp_path, with_steps({"map": {"function": "own:odd", "timeout_s": 0.3}}, max_dead=12), questions(60))
    support.run(tmp_path).says(0, "48 out, 12 dead")
    found = {row["row"]: (row["code"], row["message"]) for row in dead(tmp_path)}
    wanted = {
        1: ("function_error", f"ValueError: boom ({tmp_path}/own.py:6)"),
        2: ("function_error", "SystemExit: 3"),
        3: ("function_error", "KeyboardInterrupt"),
        4: ("function_result", "a map function must return a dict of column names to values, not NoneType None"),
        5: ("function_result", "not list [1, 2]"),
        6: ("function_result", "the keys of a row are text"),
        7: ("function_result", "x is of type object, which a row can't hold"),
        8: ("function_timeout", "exceeded its time limit of 0.3 s"),
        9: ("function_result", "column 'question' is a source column and can't be overwritten"),
        10: ("encode_error", "column 'x': expected int64, got string 'text'"),
        11: ("encode_error", "column 'x': expected int64"),
        12: ("function_error", "EOFError"),
    }
    assert {row: code for row, (code, _) in found.items()} == {row: code for row, (code, _) in wanted.items()}
    for row, (_, words) in wanted.items():
        assert words in found[row][1]
    assert {row["question"] for row in output(tmp_path)} == {
        f"q{number}" for number in range(60) if number not in wanted
    }


@pytest.mark.process
def test_an_error_that_repeats_its_row_and_half_a_character(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text('def odd(row):\n    raise ValueError(row["question"] + "\\ud800")\n')
    write(tmp_path, with_steps({"map": {"function": "own:odd"}}, max_dead=2), support.lines({"question": "why " * 9}))
    support.started(tmp_path, "run", "p.yaml", "--display", "jsonl").says(0, "[row]")
    assert dead(tmp_path)[0]["code"] == "function_error"


ODD_VALUES = """
import datetime as dt, sys
from decimal import Decimal
from zoneinfo import ZoneInfo

class Liar(dt.datetime):
    def isoformat(self, *rest): return "NaT"
class Items(list):
    def __iter__(self): raise ValueError("no items")
class NoText(Exception):
    def __str__(self): raise SystemExit(3)
def huge():
    sys.set_int_max_str_digits(0)
    return 10 ** 6000
def raised(error):
    raise error
loop = []
loop.append(loop)
VALUES = [
    ("text", lambda: "\\ud800"),
    ("inner", lambda: {"a": ["x\\ud800"]}),
    ("key", lambda: {"a\\ud800": 1}),
    ("liar", lambda: Liar(2020, 1, 1)),
    ("zone", lambda: dt.datetime(9999, 12, 31, 23, tzinfo=ZoneInfo("America/New_York"))),
    ("nan", lambda: Decimal("sNaN")),
    ("huge", huge),
    ("loop", lambda: loop),
    ("items", lambda: Items([1])),
    ("error", lambda: raised(ValueError("\\ud800"))),
    ("silent", lambda: raised(NoText())),
]
def value(row):
    number = int(row["question"][1:])
    return VALUES[number - 5] if 5 <= number < 5 + len(VALUES) else ("fine", lambda: 1)
def mapped(row):
    return {"x": value(row)[1]()}
def expanded(row):
    return [mapped(row)]
def kept(row):
    return bool(value(row)[1]()) or True
def named(row):
    return {"n\\ud800": 1} if row["question"] == "q7" else {"n": 1}
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("step", "dead_rows"),
    [("map", 11), ("expand", 11), ("filter", 2)],
)
def test_a_value_that_can_not_be_sent_costs_its_row_alone_and_no_process(
    tmp_path: Path, step: str, dead_rows: int
) -> None:
    """Text that is not Unicode, as a surrogate that has lost its pair, is a `str` to Python and nothing to others."""
    function = {"map": "own:mapped", "expand": "own:expanded", "filter": "own:kept"}[step]
    (tmp_path / "own.py").write_text(ODD_VALUES)
    write(tmp_path, with_steps({step: {"function": function}}, max_dead=1.0), questions(20))
    told = support.run(tmp_path)
    told.says(0, f"{20 - dead_rows} out, {dead_rows} dead")
    codes = {row["row"]: row["code"] for row in dead(tmp_path)}
    results, late = dict.fromkeys((5, 6, 7, 8, 11, 12, 13), "function_result"), {9: "encode_error", 10: "encode_error"}
    errors = dict.fromkeys((14, 15), "function_error")
    assert codes == (errors if step == "filter" else {**results, **late, **errors})
    assert not (tmp_path / "out" / "logs" / "coordinator.log").exists(), "no process has died"


@pytest.mark.process
def test_the_name_of_a_column_that_is_no_text_costs_its_row_alone(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(ODD_VALUES)
    write(tmp_path, with_steps({"map": {"function": "own:named"}}), questions(20))
    support.run(tmp_path).says(0, "19 out, 1 dead", "1 x function_result", "is not valid Unicode: a lone surrogate")


@pytest.mark.process
@pytest.mark.parametrize("key", ["prompt", "messages"])
def test_a_prompt_that_can_not_be_sent_costs_its_row_alone(tmp_path: Path, key: str) -> None:
    template = "{{ '\\ud800' if question == 'q7' else question }}"
    step = {"model": "writer", "output": "answer", "max_tokens": 3}
    step[key] = template if key == "prompt" else [{"role": "user", "content": template}]
    write(tmp_path, with_steps({"generate": step}))
    support.run(tmp_path).says(0, "19 out, 1 dead", "1 x encode_error", "the prompt can't be sent")
    assert [row["row"] for row in dead(tmp_path)] == [7]


@pytest.mark.process
@pytest.mark.parametrize(
    ("ends", "how", "message"),
    [
        ("ctypes.string_at(0)", "killed by SIGSEGV", "Segmentation fault (File "),
        ("os._exit(0)", "exited with code 0", "exited with code 0"),  # a death like any other
    ],
    ids=["crash", "code 0"],
)
def test_a_function_that_ends_its_process_costs_its_row_alone(
    tmp_path: Path, ends: str, how: str, message: str
) -> None:
    (tmp_path / "own.py").write_text(
        f"import ctypes, os\ndef f(row):\n    return {{'x': {ends} if row['question'] == 'q7' else 1}}\n"
    )
    write(tmp_path, with_steps({"map": {"function": "own:f"}}))
    support.run(tmp_path).says(0, "19 out, 1 dead", "1 x engine_crash", how)
    (on_dead_row,) = dead(tmp_path)
    assert on_dead_row["row"] == 7
    assert message in on_dead_row["message"]


@pytest.mark.process
def test_a_function_that_takes_no_row_is_told_without_our_own_places(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def f():\n    return {}\n")
    write(tmp_path, with_steps({"map": {"function": "own:f"}}))
    told = support.run(tmp_path)
    told.says(3, "20 x function_error", "TypeError: f() takes 0 positional arguments but 1 was given")
    assert "penstock/engines" not in told.err


@pytest.mark.process
def test_a_function_may_give_the_source_columns_back(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def f(row):\n    return {**row, 'n': len(row['question'])}\n"
        "def g(row):\n    return [{**row, 'i': 0}, {'question': 'other', 'i': 1}]\n"
    )
    write(tmp_path, with_steps({"map": {"function": "own:f"}}, {"expand": {"function": "own:g"}}), questions(3))
    support.run(tmp_path).says(3, "3 x function_result in step expand", "column 'question' is a source column")
    write(tmp_path, with_steps({"map": {"function": "own:f"}}), questions(3))
    support.run(tmp_path, "--out", "again").says(0, "3 out")


@pytest.mark.process
def test_lambdas_and_functions_of_a_script_reach_the_workers(tmp_path: Path) -> None:
    write(tmp_path)
    script = (
        "import penstock as ps\n"
        "rows = ps.read('q.jsonl').map(lambda row: {'n': len(row['question'])}).filter(lambda row: row['n'] < 3)\n"
        "result = rows.write('out').run(display='none')\n"
        "print(result.exit_code, result.summary['rows']['out'], result.summary['rows']['filtered'])\n"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert (done.stdout, done.stderr) == ("0 10 10\n", "")
