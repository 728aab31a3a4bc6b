"""Files given as pipeline files."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli.pipeline_file import read_text
from penstock.errors import ConfigError


def test_a_data_file_is_refused_with_the_pipeline_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"question": "Why?"}\n')
    (tmp_path / "pipeline.yaml").write_text("steps: []\n")
    with pytest.raises(ConfigError, match=r"is a data file; expected a pipeline file \(YAML\); .* has pipeline\.yaml"):
        read_text(str(tmp_path / "questions.jsonl"))


def test_a_pipeline_may_be_json(tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text("{}\n")
    assert read_text(str(tmp_path / "pipeline.json")) == "{}\n"
