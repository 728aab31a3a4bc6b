"""Rows and keys are in no log, no figure and no error text, whatever fails. dead/ has the rows: that is its purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from run_support import run

pytestmark = pytest.mark.process

CANARY, KEY = "canary-7c1f9e", "sk-canary-52d0aa"
ROWS = 7


def leaks(folder: Path) -> list[str]:
    """Files that hold one of them, but for the source, the pipeline, and what the rows themselves have come to."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if not path.is_file() or inside[:2] in (("out", "data"), ("out", "dead")) or path.name in ("rows.jsonl",):
            continue
        if "segments" in inside or path.name in ("pipeline.yaml", "given.json", "own_steps.py"):
            continue
        content = path.read_bytes()
        found += [f"{path}: {word}" for word in (CANARY, KEY) if word.encode() in content]
    return found


@pytest.mark.parametrize(
    "options",
    [{"crash_on": "number 3;"}, {"hang_on": "number 4;"}, {"fail_on": "number 5;"}, {"oom_over_tokens": 3}, {}],
    ids=["crash", "hang", "refused", "memory", "none"],
)
def test_nothing_of_a_row_is_told(tmp_path: Path, options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    rows = ({"id": number, "q": f"{CANARY} number {number};"} for number in range(ROWS))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own_steps.py").write_text(
        "def fail(row):\n    if row['id'] == 6:\n        raise ValueError('a row')\n    return {}\n"
    )
    prompt = "{{ q }}"
    written = {
        "models": {
            "writer": {"ref": "mock:test", "replicas": 2, "progress_timeout_s": 1, "engine_options": options},
            "served": {"ref": "small", "engine": "openai", "base_url": "http://127.0.0.1:9/v1",
                       "engine_options": {"start_patience_s": 0, "patience_s": 0.5, "retries": 0}},
        },
        "source": {"path": "rows.jsonl"},
        "steps": [
            {"generate": {"model": "writer", "prompt": prompt, "output": "answer"}},
            {"map": {"function": "own_steps:fail"}},
            *([{"generate": {"model": "served", "prompt": prompt, "output": "more"}}] if not options else []),
        ],
        "sink": {"path": "out"},
        "max_dead": 1.0,
        "commit_every_s": 0.1,
    }  # fmt: skip
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(written))
    assert run(tmp_path, "--set", "seed=1") in (0, 1)
    assert (tmp_path / "stderr.txt").stat().st_size
    assert leaks(tmp_path) == []
