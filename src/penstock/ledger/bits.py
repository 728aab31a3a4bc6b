"""Which source positions have ended: one watermark, and a bitmap above it that does not grow with the input."""

from __future__ import annotations

import base64
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from penstock.errors import InvariantError, LedgerDamaged

__all__ = ["EndedPositions"]

# A bitmap covers `reach` positions (a million); this bounds what a damaged entry could make us inflate.
MAX_BITMAP_BYTES = 1 << 26


class EndedPositions:
    """Every position below `watermark` has ended, and those above it whose bit is set. Immutable from outside.

    Invariant: the position at the watermark may be set only in a state in between; `advanced` checks that whatever
    the watermark passes has ended, and that nothing ends twice.
    """

    def __init__(self, watermark: int = 0, bits: bytearray | None = None) -> None:
        self.watermark = watermark
        self._base = watermark & ~7  # the position of bit 0
        self._bits = bits if bits is not None else bytearray()

    def __contains__(self, position: int) -> bool:
        if position < self.watermark:
            return True
        byte, bit = divmod(position - self._base, 8)
        return byte < len(self._bits) and bool(self._bits[byte] >> bit & 1)

    def above(self) -> Iterator[int]:
        """The positions at or above the watermark that have ended, ascending."""
        for number, byte in enumerate(self._bits):
            if byte:
                first = self._base + 8 * number
                for bit in range(8):
                    if byte >> bit & 1 and first + bit >= self.watermark:
                        yield first + bit

    def advanced(self, ended: Sequence[int], watermark: int) -> EndedPositions:
        """A new state in which `ended` (ascending) have ended too, and the watermark stands at `watermark`.

        Raises InvariantError where a position ended before, or the watermark passes one that has not ended.
        """
        if watermark < self.watermark:
            raise InvariantError(f"the watermark went back from {self.watermark} to {watermark}")
        bits = bytearray(self._bits)
        passed = bisect_left(ended, watermark)
        self._mark(bits, ended)
        self._check_passed(passed, watermark)
        new_base = watermark & ~7
        del bits[: (new_base - self._base) // 8]
        after = EndedPositions(watermark, bits)
        return after

    def _mark(self, bits: bytearray, ended: Sequence[int]) -> None:
        if not ended:
            return
        if ended[0] < self.watermark:
            raise InvariantError(f"source row {ended[0]} ended twice: the watermark is at {self.watermark}")
        base = self._base
        needed = (ended[-1] - base) // 8 + 1
        if needed > len(bits):
            bits.extend(bytes(needed - len(bits)))
        for position in ended:
            offset = position - base
            mask = 1 << (offset & 7)
            if bits[offset >> 3] & mask:
                raise InvariantError(f"source row {position} ended twice, or `ended` is not ascending")
            bits[offset >> 3] |= mask

    def _check_passed(self, passed: int, watermark: int) -> None:
        before = self._count(self.watermark, watermark)
        if before + passed != watermark - self.watermark:
            missing = watermark - self.watermark - before - passed
            raise InvariantError(f"the watermark moved to {watermark}, past {missing} source rows that have not ended")

    def _count(self, start: int, stop: int) -> int:
        """How many positions from `start` (the watermark) up to `stop` are set."""
        low, high = start - self._base, stop - self._base
        window = int.from_bytes(self._bits[: (high + 7) // 8], "little")
        return ((window & ((1 << high) - 1)) >> low).bit_count()

    def encode(self) -> str:
        """Base64 of the zlib-compressed bitmap; "" when no position above the watermark has ended."""
        bits = bytes(self._bits).rstrip(b"\0")
        if not any(True for _ in self.above()):
            return ""
        return base64.b64encode(zlib.compress(bits, 6)).decode("ascii")

    @classmethod
    def decode(cls, watermark: int, text: str) -> EndedPositions:
        """The inverse of `encode`. Raises LedgerDamaged."""
        if not text:
            return cls(watermark)
        try:
            inflate = zlib.decompressobj()
            bits = inflate.decompress(base64.b64decode(text, validate=True), MAX_BITMAP_BYTES)
        except (ValueError, zlib.error) as error:
            raise LedgerDamaged(f"the list of ended rows can't be read: {error}") from error
        if inflate.unconsumed_tail or not inflate.eof:
            raise LedgerDamaged("the list of ended rows is cut short or too long")
        return cls(watermark, bytearray(bits))
