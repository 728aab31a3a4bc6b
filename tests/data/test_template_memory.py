"""Templates at random: none takes more memory than a rendering may, whatever it asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.spec.template_meter import MAX_RENDERING_BYTES

pytestmark = pytest.mark.process

ADDRESSES_BYTES = 4 << 30  # a rendering that asks for a gigabyte gets it; the figure that is judged is the peak


@pytest.mark.parametrize("count", [40, pytest.param(160, marks=pytest.mark.slow)])
def test_templates_at_random_stay_within_their_memory(count: int) -> None:
    grammar = Path(__file__).with_name("template_grammar.py")
    done = subprocess.run(
        [sys.executable, str(grammar), "0", str(count), str(ADDRESSES_BYTES)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    grown_bytes = int(done.stdout)
    assert grown_bytes < 2 * MAX_RENDERING_BYTES, f"{grown_bytes >> 20} MiB"
