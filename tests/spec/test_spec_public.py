"""The public face: exact names, loaded where they are used."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import penstock

ROOT = Path(__file__).parents[2]
HEAVY = ("pydantic", "pyarrow", "jinja2", "yaml", "msgspec", "torch", "ray", "pandas", "rich")


def test_all_is_what_dir_gives() -> None:
    assert dir(penstock) == sorted(penstock.__all__)
    assert len(set(penstock.__all__)) == len(penstock.__all__)


def test_every_name_of_the_specification_loads() -> None:
    runtime = {"run", "RunOptions", "RunResult"}
    for name in penstock.__all__:
        if name not in runtime:
            assert getattr(penstock, name) is not None


@pytest.mark.parametrize("name", ["run", "plan", "retry"])
def test_rows_in_place_of_a_pipeline_are_refused(name: str) -> None:
    with pytest.raises(penstock.UsageError, match=f"{name}: expected a Pipeline, got Rows; Rows have to_pipeline"):
        getattr(penstock, name)(penstock.read([{"a": 1}]).write("out"))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pipelines'"):
        _ = penstock.pipelines


def test_the_version_is_that_of_the_package() -> None:
    assert penstock.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_importing_loads_nothing_heavy() -> None:
    program = f"import sys, penstock\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    environment = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
