"""Which source positions have ended: one watermark and a ring of `reach` flags.

                watermark                 newest
    all ended ──────┤ 1 0 0 1 1 0 1 ... ────┤ nothing yet
                    └── flags, position % reach

Memory does not grow with the input. A position at or beyond watermark + reach can't be marked, which is what the flow's
`reach` guards.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.errors import InvariantError


class Positions:
    """`watermark`: every position below it has ended. `ended_count` counts the ended ones, those included."""

    def __init__(self, watermark: int, ended_above: Iterable[int], reach: int) -> None:
        self.reach = reach
        self.watermark = watermark
        self.ended_count = watermark
        self._flags = bytearray(reach)
        self.mark(ended_above)

    def mark(self, positions: Iterable[int]) -> None:
        """Mark positions as ended and move the watermark. A position may be marked once only."""
        flags, reach, watermark = self._flags, self.reach, self.watermark
        count = 0
        for position in positions:
            # A ring of flags: a position and the one `reach` further on are never both in play.
            slot = position % reach
            if flags[slot] or not watermark <= position < watermark + reach:
                raise InvariantError(f"position {position} ended twice, or lies out of reach of watermark {watermark}")
            flags[slot] = 1
            count += 1
        self.ended_count += count
        self._advance()

    def _advance(self) -> None:
        flags, reach = self._flags, self.reach
        while True:
            start = self.watermark % reach
            stop = flags.find(0, start)
            # At most two runs: up to the end of the ring, and from its beginning.
            run = (reach if stop < 0 else stop) - start
            if run:
                flags[start : start + run] = bytes(run)
                self.watermark += run
            if stop >= 0 or not run:
                return

    def ended_above(self) -> list[int]:
        """The ended positions at or above the watermark, ascending."""
        found = []
        flags, reach, base = self._flags, self.reach, self.watermark
        start = base % reach
        for low, high in ((start, reach), (0, start)):
            slot = flags.find(1, low, high)
            while slot >= 0:
                found.append(base + (slot - start) % reach)
                slot = flags.find(1, slot + 1, high)
        return found
