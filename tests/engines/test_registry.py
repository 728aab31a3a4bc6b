from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from penstock import engine_info
from penstock.distribution import install_command, pip_command
from penstock.engine_info import EngineInfo, engines, info_of, install_hint, is_installed
from penstock.engines import registry
from penstock.engines.mock.engine import MockEngine
from penstock.errors import ConfigError, MissingDependency
from penstock.protocol.payloads import ALL_KINDS


def test_an_engine_is_made_by_name() -> None:
    assert isinstance(registry.create("mock"), MockEngine)


def test_an_unknown_engine_has_a_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'transformers'"):
        registry.create("transformer")


def test_which_engines_need_devices() -> None:
    need = {name for name, info in engines().items() if info.devices}
    assert need == {"sentence-transformers", "transformers", "vllm"}


def test_what_is_missing_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = replace(info_of("vllm"), modules=("no_such_module",))
    monkeypatch.setattr(engine_info, "engines", lambda: {"vllm": missing})
    assert not is_installed(missing)
    with pytest.raises(MissingDependency, match=r"needs no_such_module.* pip install .*\[vllm\]'"):
        registry.create("vllm")


def test_an_engine_without_adapter_is_not_installed() -> None:
    planned = EngineInfo(name="planned")
    assert not is_installed(planned)


def test_hints_are_commands() -> None:
    assert install_hint(info_of("openai")) == install_command("openai")
    assert install_hint(info_of("mock")) == ""
    assert install_hint(EngineInfo(name="x", modules=("x_engine",))) == pip_command("x_engine")


def test_looking_for_engines_imports_none() -> None:
    code = (
        "import sys; from penstock.engine_info import engines, is_installed; "
        "[is_installed(info) for info in engines().values()]; "
        "print([name for name in ('torch', 'transformers', 'vllm', 'aiohttp', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("info", engines().values(), ids=lambda info: info.name)
def test_payloads_are_kinds_of_the_protocol(info: EngineInfo) -> None:
    assert info.payloads and info.payloads <= set(ALL_KINDS)


@pytest.mark.parametrize("info", engines().values(), ids=lambda info: info.name)
def test_adapters_and_checks_exist(info: EngineInfo) -> None:
    """Read, not imported: most engines' packages are not installed here."""
    for path in filter(None, (info.adapter, info.check)):
        module, _, name = path.partition(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
