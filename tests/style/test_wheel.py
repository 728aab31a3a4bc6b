"""What a person installs is complete: the wheel holds every module, the type marker and the demo's model."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from style_source import PACKAGE, ROOT, python_files

DATA = [
    "py.typed",
    "models/docwriter/config.json",
    "models/docwriter/generation_config.json",
    "models/docwriter/model.safetensors",
    "models/docwriter/tokenizer.json",
    "models/docwriter/tokenizer_config.json",
    "models/docwriter/chat_template.jinja",
    "models/docwriter/README.md",
]


@pytest.mark.parametrize("name", DATA)
def test_package_data_is_there(name: str) -> None:
    assert (PACKAGE / name).is_file()


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    built = next(iter(wheel.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))
    with zipfile.ZipFile(Path(built)) as archive:
        return set(archive.namelist())


def test_wheel_holds_every_module_and_all_data(wheel_names: set[str]) -> None:
    modules = {path.relative_to(PACKAGE.parent).as_posix() for path in python_files("src")}
    data = {f"penstock/{name}" for name in DATA}
    assert (modules | data) - wheel_names == set()


def test_wheel_holds_nothing_else(wheel_names: set[str]) -> None:
    strangers = {name for name in wheel_names if not name.startswith(("penstock/", "penstock_llm-"))}
    assert strangers == set()
