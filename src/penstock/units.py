"""Numbers as short strings. Pure; arguments are in plain units (s, bytes)."""

from __future__ import annotations

import math

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(value: int) -> str:
    """1234567 -> "1,234,567"."""
    return f"{value:,}"


def noun(value: int, singular: str, plural: str | None = None) -> str:
    """1 -> "1 row", 2 -> "2 rows"."""
    return f"{count(value)} {singular if value == 1 else plural or singular + 's'}"


def rate(per_s: float) -> str:
    """A rate with three digits that count: 0.42, 8.1, 812, 12,345. Not finite or negative: 0."""
    if not math.isfinite(per_s) or per_s <= 0:
        return "0"
    if per_s < 1:
        return f"{per_s:.2f}"
    if per_s < 100:
        return f"{per_s:.1f}"
    return f"{per_s:,.0f}"


def share(fraction: float | None) -> str:
    """A share between 0 and 1 in whole percent; None: "-"."""
    if fraction is None or not math.isfinite(fraction):
        return "-"
    return f"{100 * min(max(fraction, 0.0), 1.0):.0f}%"


def percent_done(done: int, total: int | None) -> str | None:
    """Progress with one decimal, never 100.0% before the last row; None where the total is not known."""
    if not total:
        return None
    tenths = min(1000 * done // total, 1000)
    return f"{tenths / 10:.1f}%"


def gigabytes(value: int) -> str:
    """141.1 GB: one unit for all sizes of a plan, so that they can be added up by eye. Under 0.1 GB in MB, so that
    nothing is 0.0 GB."""
    value = max(value, 0)
    if 0 < value < 100_000_000:
        return f"{value / 1e6:.1f} MB"
    return f"{value / 1e9:,.1f} GB"


def byte_size(value: int) -> str:
    """One size by itself, in the unit that suits it. Decimal units, as everywhere in Penstock: 1 GB is 10^9 bytes."""
    size = float(max(value, 0))
    for unit in _BYTE_UNITS:
        if size < 999.5 or unit == _BYTE_UNITS[-1]:
            break
        size /= 1000
    digits = 0 if unit == "B" or size >= 99.95 else 1
    return f"{size:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """0.4s, 12s, 3m 05s, 2h 07m, 3d 04h."""
    if not math.isfinite(seconds):
        return "unknown"
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def one_line(text: str, limit_characters: int) -> str:
    """`text` on one line, control characters removed, cut with an ellipsis at the limit."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= limit_characters else flat[: max(limit_characters - 1, 0)].rstrip() + "…"
