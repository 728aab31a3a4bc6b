"""The public face is exact and light. Which types it has: test_public_types.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import penstock

HEAVY = {"aiohttp", "jinja2", "numpy", "pandas", "pyarrow", "pydantic", "ray", "torch", "transformers", "vllm"}
# what each entry may have loaded of HEAVY
LIGHT_ENTRIES = {
    "penstock": set[str](),
    "penstock.core.core": set[str](),
    "penstock.engine_info": set[str](),
    "penstock.host.host": set[str](),
    "penstock.cli.main": {"jinja2", "pydantic", "pyarrow", "numpy"},
}


def test_dir_gives_exactly_what_all_promises() -> None:
    assert dir(penstock) == sorted(penstock.__all__)
    assert len(set(penstock.__all__)) == len(penstock.__all__)


@pytest.mark.parametrize("name", penstock.__all__)
def test_every_exported_name_exists(name: str) -> None:
    assert getattr(penstock, name) is not None


@pytest.mark.parametrize("entry", sorted(LIGHT_ENTRIES))
def test_importing_stays_light(entry: str) -> None:
    code = f"import sys, json; import {entry}; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout)) & HEAVY
    assert loaded <= LIGHT_ENTRIES[entry], f"import {entry} loads {sorted(loaded - LIGHT_ENTRIES[entry])}"
