"""Which base URL gets the next request, which are put aside, and how many retries a service is spared from.

An endpoint is in one of three conditions:

    up       takes requests up to its limit; the limit halves when it says 429 and grows with every answer
    aside    gets nothing until a moment: after 429 with Retry-After, or after it could not be reached
    probed   it could not be reached and its pause is over: one request at a time, until one is answered

So a service that is away costs one request per pause, and what waits for it has lost no attempt.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from penstock.engines.openai.failures import CallFailed

__all__ = ["Endpoint", "Endpoints", "RetryBudget"]

ASIDE_FIRST_S = 1.0
ASIDE_MOST_S = 30.0
LEAST_TIME_BETWEEN_CUTS_S = 1.0
"""Requests sent together are refused together; that is one sign of overload, not many."""


class Endpoint(msgspec.Struct):
    """One base URL. Times are monotonic seconds."""

    url: str
    limit: float
    outstanding: int = 0
    failures: int = 0
    aside_until: float = 0.0
    cut_at: float = -LEAST_TIME_BETWEEN_CUTS_S
    picked: int = 0

    def takes(self, now_s: float) -> bool:
        most = 1 if self.failures else max(1, int(self.limit))
        return self.aside_until <= now_s and self.outstanding < most


class Endpoints:
    """The base URLs of one model. Pure: every time is handed in."""

    def __init__(self, urls: Sequence[str], concurrency: int) -> None:
        self._concurrency = concurrency
        self._all = [Endpoint(url.rstrip("/"), float(concurrency)) for url in urls]

    def pick(self, now_s: float) -> Endpoint | None:
        """The least busy of those that take a request now; the caller reports `done` once for each."""
        ready = [each for each in self._all if each.takes(now_s)]
        if not ready:
            return None
        found = min(ready, key=lambda each: (each.failures > 0, each.outstanding, each.picked))
        found.outstanding += 1
        found.picked += 1
        return found

    def next_s(self, now_s: float) -> float | None:
        """Seconds until an endpoint that is aside comes back; None where none is aside."""
        aside = [each.aside_until - now_s for each in self._all if each.aside_until > now_s]
        return min(aside, default=None)

    def done(self, endpoint: Endpoint) -> None:
        endpoint.outstanding -= 1

    def answered(self, endpoint: Endpoint) -> None:
        endpoint.failures = 0
        endpoint.limit = min(float(self._concurrency), endpoint.limit + 1 / endpoint.limit)

    def failed(self, endpoint: Endpoint, now_s: float, failure: CallFailed) -> None:
        """Put the endpoint aside as long as it asks, and longer each time it fails in a row where it is away."""
        pause_s = min(failure.retry_after_s or 0.0, ASIDE_MOST_S)
        if failure.kind == "away" and endpoint.aside_until <= now_s:
            endpoint.failures += 1
            pause_s = max(pause_s, min(ASIDE_FIRST_S * 2 ** (endpoint.failures - 1), ASIDE_MOST_S))
        if failure.kind == "busy" and now_s - endpoint.cut_at >= LEAST_TIME_BETWEEN_CUTS_S:
            endpoint.cut_at = now_s
            endpoint.limit = max(1.0, endpoint.limit / 2)
        endpoint.aside_until = max(endpoint.aside_until, now_s + pause_s)


class RetryBudget:
    """Bounds what retries add to the load of a service in trouble: one per four first tries, and a stock of fifty."""

    PER_FIRST_TRY = 0.25
    MOST = 50.0

    def __init__(self) -> None:
        self._left = self.MOST

    def first_try(self) -> None:
        self._left = min(self.MOST, self._left + self.PER_FIRST_TRY)

    def allows_retry(self) -> bool:
        if self._left < 1:
            return False
        self._left -= 1
        return True
