"""Numbers in reasons. GB is 10^9 bytes."""

from __future__ import annotations

__all__ = ["gigabytes", "plural"]


def gigabytes(size_bytes: int) -> str:
    """141.1 GB; under 0.1 GB in MB, so that nothing is shown as 0.0 GB."""
    size_bytes = max(size_bytes, 0)
    if 0 < size_bytes < 100_000_000:
        return f"{size_bytes / 1e6:.1f} MB"
    return f"{size_bytes / 1e9:,.1f} GB"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"
