from __future__ import annotations

import json
from pathlib import Path

from penstock.cli.pipeline_file import load
from penstock.cli.preview import describe, read_parts, small


def test_one_replica_of_each_model_and_any_number_of_dead(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "models: {w: {ref: 'mock:w', replicas: 8}}\nsource: q.jsonl\nsink: out\n"
        "steps: [{generate: {model: w, prompt: 'x', output: y}}]\n"
    )
    pipeline = load(str(file))
    preview = small(pipeline, 3)
    assert (preview.models["w"].replicas, preview.max_dead) == (1, 3)
    assert pipeline.models["w"].replicas == 8
    assert preview.steps == pipeline.steps


def test_rows_and_dead_rows_as_text() -> None:
    rows = [{"question": "Why?", "answer": "One.\nTwo.", "vector": [0.5, 1.0]}, {"question": "x" * 3000}]
    dead = [{"source": "q.jsonl", "row": 2, "step": "generate", "code": "too_long", "message": "9 of 8", "input": "{}"}]
    text = describe(rows, dead)
    assert text.startswith("row 0\n  question: Why?\n  answer:\n    One.\n    Two.\n  vector: [0.5, 1.0]\n\nrow 1\n")
    assert f"{'x' * 2000}… (3,000 characters)" in text
    assert text.endswith("dead: q.jsonl row 2 in step generate\n  too_long: 9 of 8\n  input: {}\n\n2 rows out, 1 dead")
    assert describe([], []) == "0 rows out, 0 dead" and describe(rows[:1], []).endswith("\n\n1 row out, 0 dead")


def test_parts_of_a_folder(tmp_path: Path) -> None:
    assert read_parts(tmp_path / "nowhere") == []
    assert read_parts(tmp_path) == []
    for number in range(2):
        lines = [json.dumps({"n": 1500 * number + i}) for i in range(1500)]
        (tmp_path / f"part-{number:05d}.jsonl").write_text("\n".join(lines))
    assert [row["n"] for row in read_parts(tmp_path)] == list(range(3000))
