"""Facts as one line of JSON, for programs that watch a run."""

from __future__ import annotations

import msgspec

from penstock.report.facts import RunFacts
from penstock.terminal import json_visible


def line(facts: RunFacts) -> str:
    """One JSON object with the fields of `RunFacts`, without a newline."""
    return json_visible(msgspec.json.encode(facts).decode())
