"""Arguments of the public functions that are of another kind: refused at once, with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps

MODEL = ps.Model("mock:a")
ROWS = ps.read([{"id": 1}]).generate(MODEL, prompt="{{ id }}", output="o").write("out")
PIPELINE = ROWS.to_pipeline()
any_: Any = None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ps.run(any_), "expected a Pipeline, got NoneType"),
        (lambda: ps.run(ROWS), r"expected a Pipeline, got Rows; Rows have to_pipeline\(\)"),
        (lambda: ps.plan(ROWS), r"expected a Pipeline, got Rows; Rows have to_pipeline\(\)"),
        (lambda: ps.retry(ROWS), r"expected a Pipeline, got Rows; Rows have to_pipeline\(\)"),
        (lambda: ps.plan(PIPELINE, 5), "expected a Cluster, got int"),
        (lambda: ps.run(PIPELINE, {"limit": 1}), "expected RunOptions.*, got {'limit': 1}"),
        (lambda: ps.retry(PIPELINE, {"limit": 1}), "expected RunOptions.*, got {'limit': 1}"),
        (lambda: ps.retry(PIPELINE, codes=["refusd"]), "unknown code 'refusd'; did you mean 'refused'"),
        (lambda: ps.retry(PIPELINE, codes="refusd"), "unknown code 'refusd'; did you mean 'refused'"),
        (lambda: ps.RunOptions(limit=0), "'limit': expected a whole number of at least 1, .* got 0"),
        (lambda: ps.RunOptions(limit="5"), "'limit': expected a whole number of at least 1, .* got '5'"),
        (lambda: ps.RunOptions(limit=True), "'limit': .* got True"),
        (lambda: ps.RunOptions(out=3), "'out': expected a path, got 3"),
        (lambda: ps.RunOptions(display="fancy"), "'display': unknown value 'fancy' .known: auto, rich, plain"),
        (lambda: ps.RunOptions(interval_s=float("nan")), "'interval_s': expected seconds of at least 0, got nan"),
        (lambda: ps.launch("mock:a"), r"expected a Model, got 'mock:a'; write Model\('mock:a'\)"),
        (lambda: ps.launch(MODEL, replicas=0), "'replicas': expected a whole number of at least 1 or 'auto', got 0"),
        (lambda: ps.launch(MODEL, replicas="two"), "'replicas': .* got 'two'"),
        (lambda: ps.launch(MODEL, replicas=1.5), "'replicas': .* got 1.5"),
        (lambda: ps.launch(MODEL, resources={"reserve": 1}), r"'resources': expected Resources\(\.\.\.\), got"),
        (lambda: ps.launch(MODEL, seed="x"), "'seed': expected a whole number, got 'x'"),
        (lambda: ps.read([{"id": 1}]).join(5), "join takes Rows, got 5"),
    ],
)
def test_what_is_of_another_kind_is_refused(call: Callable[[], Any], says: str) -> None:
    with pytest.raises((ps.UsageError, ps.ConfigError), match=says):
        call()


def test_an_output_folder_may_be_a_path() -> None:
    assert ps.RunOptions(out=Path("a/b")).out == "a/b"  # type: ignore[arg-type]
