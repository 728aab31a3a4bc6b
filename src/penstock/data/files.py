"""Many files as one source: positions run through the files in order, and seeking opens as few as it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from penstock.data.base import Chunk
from penstock.data.paths import DataFile
from penstock.data.proof import Content, FileProof, ReadProof, byte_content, head_of
from penstock.errors import InputError


class FileReader(Protocol):
    """Reads one file, forward only."""

    def read(self, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        """At most `max_rows` records; a chunk may be empty where all were skipped; None at the end."""
        ...

    def pass_over(self, records: int) -> int:
        """Pass over up to `records` records; how many they were, less only at the end."""
        ...

    def consumed_bytes(self) -> int:
        """How much of the file, as it lies on disk, has become records."""
        ...

    def close(self) -> None: ...


OpenFile = Callable[[DataFile, int, FileProof | None], FileReader]


class FilesSource:
    """A Source over files of one format.

    rows   how many rows each file has, where the format tells; empty files are left out by the caller
    every  all files with the empty ones, for the identity
    content  how the files are hashed, unit by unit
    """

    def __init__(
        self,
        files: Sequence[DataFile],
        schema: pa.Schema,
        open_file: OpenFile,
        rows: Sequence[int] | None = None,
        every: Sequence[DataFile] | None = None,
        content: Content = byte_content,
    ) -> None:
        self.schema = schema
        self.total_rows = None if rows is None else sum(rows)
        self._files = list(files)
        self._every = list(files if every is None else every)
        self._open_file = open_file
        self._rows = None if rows is None else list(rows)
        self._starts = [0]  # position of the first row of each file as far as known
        for count in (rows or ())[: len(self._files) - 1]:
            self._starts.append(self._starts[-1] + count)
        self._file = 0
        self._reader: FileReader | None = None
        self._proof = ReadProof(self._files, content)
        self.proof: ReadProof | None = self._proof
        self._opened: FileProof | None = None
        self._position = 0
        self._failed = False

    def read(self, start: int, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        """As Source.read. After an InputError it seeks: the file may be read again from where it failed."""
        failed, self._failed = self._failed, True
        if failed or start != self._position:
            self._seek(start, reopen=failed)
        chunk = self._read(start, skip, max_rows)
        self._failed = False
        return chunk

    def _read(self, start: int, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        while True:
            reader = self._current()
            if reader is None:
                break
            chunk = reader.read(skip, max_rows)
            if chunk is None:
                self._next_file()
                continue
            self._position = chunk.next_position
            if self._opened is not None and self._opened.to_check:
                self._opened.check()
            if chunk.rows or chunk.unreadable:
                return chunk
        if self._position > start:
            return Chunk([], [], [], [], self._position)
        return None

    def locate(self, position: int) -> tuple[str, int]:
        file = max((index for index, start in enumerate(self._starts) if start <= position), default=0)
        if not self._files:
            raise ValueError(f"position {position} is not in the source")
        return self._files[file].name, position - self._starts[file]

    def estimate_rows(self) -> int | None:
        if self.total_rows is not None:
            return self.total_rows
        reader, position = self._reader, self._position  # another thread may be reading: either is fine
        read_bytes = sum(file.size_bytes for file in self._files[: self._file])
        read_bytes += reader.consumed_bytes() if reader is not None else 0
        if not read_bytes or not position:
            return None
        return max(position, round(position * sum(file.size_bytes for file in self._files) / read_bytes))

    def identity(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Names, sizes, a hash of each beginning, and rows where known: files that differ there are another input. What
        was read is compared in full when reading begins (proof.py).

        A compressed file that is longer than in `known` and starts the same is described as before: it was truncated,
        and is whole now.
        """
        self._proof.note_ends()
        rows = dict(zip((file.name for file in self._files), self._rows or (), strict=False))
        before = (known or {}).get("files") or []
        described = []
        for index, file in enumerate(self._every):
            size_bytes = file.size_bytes
            if file.compression and index < len(before):
                size_bytes = min(size_bytes, before[index].get("size_bytes") or size_bytes)
            head = _head_hash(file, size_bytes)
            if size_bytes < file.size_bytes and head != before[index].get("head"):
                size_bytes, head = file.size_bytes, _head_hash(file, file.size_bytes)
            described.append({"name": file.name, "size_bytes": size_bytes, "rows": rows.get(file.name), "head": head})
        return {"format": self._every[0].format if self._every else "", "files": described}

    def close(self) -> None:
        self._close_reader()

    def _current(self) -> FileReader | None:
        if self._reader is None and self._file < len(self._files):
            self._opened = self._proof.open(self._file)
            self._reader = self._open_file(self._files[self._file], self._starts[self._file], self._opened)
        return self._reader

    def _next_file(self) -> None:
        self._proof.ended(self._opened, self._file)
        if self._rows is not None:
            found, known = self._position - self._starts[self._file], self._rows[self._file]
            if found != known:
                raise InputError(
                    f"has {found} rows; it had {known} when the run started. Restore the original file, or use "
                    "another output folder (--out)",
                    where=self._files[self._file].name,
                )
        self._close_reader()
        self._file += 1
        if self._file == len(self._starts):
            self._starts.append(self._position)

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._opened is not None:
            self._opened.close()
        self._reader = self._opened = None

    def _seek(self, start: int, *, reopen: bool) -> None:
        known = [index for index, begin in enumerate(self._starts) if begin <= start and index < len(self._files)]
        target = known[-1] if known else 0
        if reopen or target != self._file or start < self._position:
            self._close_reader()
            self._file = target
            self._position = self._starts[target]
        while self._position < start:
            reader = self._current()
            if reader is None:
                raise InputError(
                    f"the source ends at row {self._position}, but row {start} was read before: its files have "
                    "changed; "
                    "use another output folder (--out)"
                )
            self._position += reader.pass_over(start - self._position)
            if self._position < start:
                self._next_file()


def _head_hash(file: DataFile, size_bytes: int) -> str:
    try:
        return head_of(file.path, size_bytes)
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", where=file.name) from None
