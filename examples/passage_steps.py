"""The function used by passages.yaml, imported from the working directory."""

from __future__ import annotations

from typing import Any


def passages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per paragraph; the columns of the document are kept."""
    return [{"passage": paragraph.strip()} for paragraph in row["text"].split("\n\n")]
