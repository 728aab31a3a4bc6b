"""Functions that can be imported, for references and digests."""

from __future__ import annotations

from typing import Any

NOT_A_FUNCTION = 3


def add_length(row: dict[str, Any]) -> dict[str, Any]:
    return {"length": len(row["answer"])}


class Tools:
    @staticmethod
    def split(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"word": word} for word in row["answer"].split()]
