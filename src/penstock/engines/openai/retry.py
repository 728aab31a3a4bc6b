"""Delays before a request to a service is retried."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Mapping

import msgspec

__all__ = ["Backoff", "backoff_s", "retry_after_s"]


class Backoff(msgspec.Struct, frozen=True):
    """first_s doubles with each attempt up to most_s; jitter is the share that is left to chance."""

    first_s: float = 0.25
    most_s: float = 30.0
    jitter: float = 0.5
    obeyed_s: float = 120.0  # a longer Retry-After is not waited for in full: the attempt is given back sooner


def backoff_s(attempt: int, asked_s: float | None, backoff: Backoff, chance: float | None = None) -> float:
    """Seconds before attempt `attempt + 1`: at least what the service asked for, and never all at one time.

    chance: a number in [0, 1) in place of a random one.
    """
    drawn = random.random() if chance is None else chance
    grown = min(backoff.first_s * 2**attempt, backoff.most_s)
    pause = grown * (1 - backoff.jitter * drawn)
    if asked_s is None:
        return pause
    return min(asked_s, backoff.obeyed_s) * (1 + 0.1 * drawn) if asked_s > pause else pause


def retry_after_s(headers: Mapping[str, str], now_s: float | None = None) -> float | None:
    """Retry-After as seconds, from a number or a date; None where it is absent or makes no sense."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    try:
        return max(0.0, float(text))  # of "nan", too
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, when - (time.time() if now_s is None else now_s))
