"""Lines of a byte stream, in blocks, with a cap on the length of one line and a fast way to pass over many.

A line ends at a line feed; a carriage return before it stays (whitespace in JSON; the CSV reader handles it). A line
longer than the cap comes out as a LongLine with its beginning; the rest is read and dropped block by block.
"""

from __future__ import annotations

import msgspec

from penstock.data.limits import BLOCK_BYTES, INPUT_CHARS, MAX_LINE_BYTES
from penstock.data.streams import ByteStream

_SPACE = b" \t\r"
_BLANK = _SPACE + b"\n"


class LongLine(msgspec.Struct, frozen=True):
    """A line over the cap: its first bytes, and its whole length in bytes."""

    beginning: bytes
    size_bytes: int

    def __len__(self) -> int:
        return self.size_bytes


Line = bytes | LongLine


def is_blank(line: Line) -> bool:
    """Nothing but space, tab and carriage return."""
    return isinstance(line, bytes) and not line.strip(_SPACE)


def count_records(block: bytes) -> int:
    """How many lines of a block (lines joined by line feeds, none at the end) are not blank."""
    if not block.strip(_BLANK):
        return 0
    lines = block.split(b"\n")
    if min(lines)[:1] > b" ":  # the smallest line begins with no space, so none does: four times as fast
        return len(lines)
    return sum(1 for line in lines if line.strip(_SPACE))


class LineReader:
    """Reads a stream line by line in blocks.

    lines     how many physical lines were taken or passed over so far, blank ones included
    offset    where the next line begins, in bytes of the decompressed stream (after a byte order mark)
    cut_off   True once the end was reached and the last line had no line feed
    """

    def __init__(
        self, stream: ByteStream, *, max_line_bytes: int = MAX_LINE_BYTES, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self.lines = 0
        self.offset = 0
        self.cut_off = False
        self._stream = stream
        self._max_line_bytes = max_line_bytes
        self._block_bytes = min(block_bytes, max_line_bytes)
        self._rest = b""
        self._ended = False
        self._loaded: list[Line] = []
        self._next = 0

    def take(self, max_lines: int) -> list[Line]:
        """The next lines, at most `max_lines` and at most those of one block; empty at the end only."""
        if self._next >= len(self._loaded) and not self._load():
            return []
        taken = self._loaded[self._next : self._next + max_lines]
        self._advance(taken)
        return taken

    def pass_blank(self) -> None:
        """Pass over blank lines up to the next that is not: whole blocks of them at once."""
        while True:
            if self._next >= len(self._loaded):
                block = self._block()
                if block is None:
                    return
                if isinstance(block, bytes) and not block.strip(_BLANK):
                    self.lines += block.count(b"\n") + 1
                    self.offset += len(block) + 1
                    continue
                self._set_loaded(block)
            index = self._next
            for line in self._loaded[index:]:
                if line and not is_blank(line):
                    break
                index += 1
            self._advance(self._loaded[self._next : index])
            if self._loaded:
                return

    def pass_over(self, records: int) -> int:
        """Pass over up to `records` lines that are not blank, without looking into them; how many they were."""
        passed = self._pass_loaded(records)
        while passed < records:
            block = self._block()
            if block is None:
                break
            count = 1 if isinstance(block, LongLine) else count_records(block)
            if passed + count > records or isinstance(block, LongLine):
                self._set_loaded(block)
                passed += self._pass_loaded(records - passed)
            else:
                passed += count
                self.lines += block.count(b"\n") + 1
                self.offset += len(block) + 1
        return passed

    def consumed_bytes(self) -> int:
        """How much of the file became lines that were taken."""
        raw_bytes = self._stream.raw_bytes()
        return self.offset if raw_bytes is None else raw_bytes

    def close(self) -> None:
        self._stream.close()

    def _pass_loaded(self, records: int) -> int:
        passed = 0
        index = self._next
        while index < len(self._loaded) and passed < records:
            passed += not is_blank(self._loaded[index])
            index += 1
        self._advance(self._loaded[self._next : index])
        return passed

    def _advance(self, taken: list[Line]) -> None:
        self._next += len(taken)
        self.lines += len(taken)
        self.offset += sum(map(len, taken)) + len(taken)
        if self._next >= len(self._loaded):
            self._loaded = []
            self._next = 0

    def _load(self) -> bool:
        block = self._block()
        if block is None:
            return False
        self._set_loaded(block)
        return True

    def _set_loaded(self, block: bytes | LongLine) -> None:
        self._next = 0
        if isinstance(block, LongLine):
            self._loaded = [block]
            return
        lines: list[Line] = list(block.split(b"\n"))
        self._loaded = lines
        first = block.partition(b"\n")[0] if len(block) > self._max_line_bytes else b""
        if len(first) > self._max_line_bytes:  # only the first line of a block can be longer than a block
            self._loaded[0] = LongLine(first[:INPUT_CHARS], len(first))

    def _block(self) -> bytes | LongLine | None:
        """Whole lines joined by line feeds, without the last line feed; or one LongLine; None at the end."""
        parts = [self._rest]
        size_bytes = len(self._rest)
        while size_bytes <= self._max_line_bytes:
            data = self._read()
            if not data:
                return self._last(b"".join(parts))
            cut = data.rfind(b"\n")
            if cut >= 0:
                self._rest = data[cut + 1 :]
                parts.append(data[:cut])
                return b"".join(parts)
            parts.append(data)
            size_bytes += len(data)
        return self._long_line(b"".join(parts))

    def _last(self, data: bytes) -> bytes | None:
        self._rest = b""
        if not data:
            return None
        self.cut_off = True
        return data

    def _long_line(self, begun: bytes) -> LongLine:
        beginning, size_bytes = begun[:INPUT_CHARS], len(begun)
        del begun
        while True:
            data = self._read()
            cut = data.find(b"\n")
            if cut < 0 and data:
                size_bytes += len(data)
                continue
            self.cut_off = not data
            self._rest = b""
            if data:
                self._push_back(data[cut + 1 :])
                size_bytes += cut
            return LongLine(beginning, size_bytes)

    def _read(self) -> bytes:
        if self._pushed:
            data, self._pushed = self._pushed, b""
            return data
        return self._stream.read(self._block_bytes)

    def _push_back(self, data: bytes) -> None:
        """Bytes that were read too far, to be read again first."""
        self._pushed = data

    _pushed = b""
