from __future__ import annotations

import subprocess
import sys

import pytest

from penstock.engines import registry
from penstock.engines.mock.engine import MockEngine
from penstock.errors import ConfigError, MissingDependency


def test_an_engine_is_made_by_name() -> None:
    assert isinstance(registry.create("mock"), MockEngine)


def test_an_unknown_engine_has_a_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'transformers'"):
        registry.create("transformer")


def test_who_needs_devices() -> None:
    assert {name for name in registry.names() if registry.needs_devices(name)} == {"transformers", "vllm"}


def test_what_is_missing_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = registry.Registered("nowhere:Nothing", ("no_such_module",), "vllm", True)
    monkeypatch.setitem(registry.ENGINES, "vllm", missing)
    assert not registry.is_installed("vllm")
    with pytest.raises(MissingDependency, match=r"needs no_such_module.* pip install 'penstock\[vllm\]'"):
        registry.create("vllm")


def test_hints_are_commands() -> None:
    assert registry.install_hint("openai") == "pip install 'penstock[openai]'"
    assert registry.install_hint("mock") == ""


def test_looking_for_engines_imports_none() -> None:
    code = (
        "import sys; from penstock.engines import registry; "
        "[registry.is_installed(name) for name in registry.names()]; "
        "print([name for name in ('torch', 'transformers', 'vllm', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
