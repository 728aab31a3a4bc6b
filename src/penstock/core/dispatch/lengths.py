"""How long outputs are expected to be, learned per step.

What is learned is the share of its limit that an output uses: for steps with one limit that is the mean length, and for
steps whose rows bring their own limit it keeps their order.
"""

from __future__ import annotations

_WEIGHT = 0.1  # of the newest answers; old ones fade within some tens of events


class Lengths:
    def __init__(self) -> None:
        self.ratio: dict[int, float] = {}  # step -> expected output / limit

    def expected(self, step: int, limit: int) -> int:
        """Tokens that an output limited to `limit` is expected to have; the limit while nothing is known."""
        return int(limit * self.ratio.get(step, 1.0) + 0.999)

    def learn(self, step: int, tokens_out: int, limits: int) -> None:
        """Some answers of one step had `tokens_out` tokens together, of `limits` allowed."""
        if limits <= 0:
            return
        seen = min(1.0, tokens_out / limits)
        before = self.ratio.get(step)
        self.ratio[step] = seen if before is None else before + _WEIGHT * (seen - before)
