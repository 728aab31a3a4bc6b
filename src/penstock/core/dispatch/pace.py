"""What one replica did in the window over which it is compared with its peers: see `peers.py`."""

from __future__ import annotations

from penstock.core.dispatch.lanes import OUTPUT_TOKEN_WORK


class Pace:
    """What one replica did in the window. answers: those with a result."""

    def __init__(self) -> None:
        self.begin(0.0)

    def begin(self, now: float) -> None:
        self.at = now  # until when it is accounted for
        self.answers = 0
        self._work = 0
        self._busy_s = 0.0  # with anything in flight
        self._held_s = 0.0  # in flight, summed over requests

    def advance(self, in_flight: int, now: float) -> None:
        """Time has passed with `in_flight` requests. Before their number changes."""
        if in_flight:
            self._busy_s += now - self.at
            self._held_s += in_flight * (now - self.at)
        self.at = now

    def answered(self, answers: int, tokens_in: int, tokens_out: int) -> None:
        self.answers += answers
        self._work += tokens_in + OUTPUT_TOKEN_WORK * tokens_out

    @property
    def rate(self) -> float:
        return self._work / max(self._busy_s, 1e-9)

    @property
    def speed(self) -> float:
        return self._work / max(self._held_s, 1e-9)
