"""CSV: a header, then records; quoted fields may hold commas, quotation marks and line breaks.

CSV has no types, so a column gets one only where nothing is lost by it: over the first thousand records, a column
whose cells are all canonical integers (no leading zeros or plus signs) is int64, all JSON numbers float64, all
`true`/`false` boolean; every other column is text, character for character. An empty cell is null in a typed column
and the empty text in a text column. The grammar is strict: a stray quotation mark makes a `bad_record`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.types as pt

from penstock.data.base import Chunk, Row, Source, Unreadable
from penstock.data.checks import Fault
from penstock.data.files import FilesSource
from penstock.data.limits import CHUNK_BYTES, COLUMN_BYTES, INPUT_CHARS, MAX_LINE_BYTES, ROW_BYTES
from penstock.data.lines import LineReader, LongLine
from penstock.data.paths import DataFile
from penstock.data.proof import FileProof
from penstock.data.sample import refuse_columns_of, sample_rows
from penstock.data.sizes import shown_names
from penstock.data.streams import FileStream
from penstock.errors import ConfigError, InputError

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_TRUTH = {"true": True, "false": False}
_MIN_INT64, _MAX_INT64 = -(1 << 63), (1 << 63) - 1
_BAD_BYTES = re.compile("[\udc80-\udcff]")


class _TooLong(Exception):
    """A physical line over the cap; raised through the csv module, which then begins a new record."""


class _Text:
    """The lines of a stream as text for the csv module; bytes that are not UTF-8 become lone surrogates."""

    def __init__(self, lines: LineReader) -> None:
        self._reader = lines
        self._taken: list[bytes | LongLine] = []
        self._next = 0
        self.line = 0
        self.record_bytes = 0  # of the lines of the record that is being read

    def __iter__(self) -> _Text:
        return self

    def __next__(self) -> str:
        if self._next >= len(self._taken):
            self._taken, self._next = self._reader.take(4096), 0
            if not self._taken:
                raise StopIteration
        line = self._taken[self._next]
        self._next += 1
        self.line += 1
        self.record_bytes += len(line) + 1
        if isinstance(line, LongLine):
            raise _TooLong(f"{line.size_bytes} bytes; the limit is {MAX_LINE_BYTES}")
        if self.record_bytes > MAX_LINE_BYTES:
            raise _TooLong(
                f"a record of more than {MAX_LINE_BYTES} bytes, which is the limit; is a quotation mark unclosed?"
            )
        return line.decode("utf-8", "surrogateescape").removesuffix("\r") + "\n"

    def pass_blank(self) -> None:
        """Between two records: pass over blank lines, quickly where there are many."""
        if self._next >= len(self._taken):
            self._reader.pass_blank()
            self.line = self._reader.lines


class _Records:
    """Records with their faults, blank lines left out."""

    def __init__(self, file: DataFile, proof: FileProof | None = None) -> None:
        self._stream = LineReader(FileStream(file, proof))
        self._text = _Text(self._stream)
        csv.field_size_limit(MAX_LINE_BYTES)
        self._reader = csv.reader(self._text, strict=True)

    def next(self) -> tuple[list[str], int, Fault | None] | None:
        """(cells, number of the record's first line, its fault), or None at the end."""
        while True:
            line = self._text.line + 1
            self._text.record_bytes = 0
            try:
                cells = next(self._reader)
            except StopIteration:
                return None
            except _TooLong as error:
                return [], line, ("line_too_long", f"line {line}: {error}")
            except csv.Error as error:
                return [], line, ("bad_record", f"line {line}: {error}")
            if cells:
                return cells, line, None
            self._text.pass_blank()

    def consumed_bytes(self) -> int:
        return self._stream.consumed_bytes()

    def close(self) -> None:
        self._stream.close()


def read_header(file: DataFile) -> list[str]:
    """The names of a file's columns; none for an empty file. Raises InputError."""
    records = _Records(file)
    try:
        return _header(records, file)
    finally:
        records.close()


def _header(records: _Records, file: DataFile) -> list[str]:
    found = records.next()
    if found is None:
        return []
    names, line, fault = found
    if fault is None and _BAD_BYTES.search("".join(names)):
        fault = ("bad_encoding", f"line {line}: the header is not UTF-8; convert the file (iconv -t UTF-8)")
    if fault is None and len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        fault = ("bad_record", f"line {line}: the header names the column {twice!r} twice; rename one")
    if fault is not None:
        raise InputError(f"the header can't be read: {fault[1]}", where=file.name)
    return names


class CsvReader:
    """Reads one CSV file from its beginning; `schema` None: every cell as text, for inferring types."""

    def __init__(self, file: DataFile, base: int, schema: pa.Schema | None, proof: FileProof | None = None) -> None:
        self._file = file
        self._base = base
        self._position = base
        self._records = _Records(file, proof)
        try:
            self._names = _header(self._records, file)
        except BaseException:
            self._records.close()
            raise
        self._converters = _converters(self._names, schema)
        self._missing = [] if schema is None else [name for name in schema.names if name not in self._names]
        self._chunk_bytes = CHUNK_BYTES

    def read(self, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        chunk = Chunk([], [], [], [], self._position)
        size_bytes = 0
        while len(chunk.rows) + len(chunk.unreadable) < max_rows and size_bytes < self._chunk_bytes:
            found = self._records.next()
            if found is None:
                break
            cells, line, fault = found
            position = self._position
            self._position += 1
            if skip is not None and skip(position):
                continue
            row: Row = {}
            fault = fault or self._fill(row, cells, line)
            if fault is not None:
                chunk.unreadable.append(self._unreadable(position, cells, fault))
                continue
            chars = sum(map(len, cells))
            size_bytes += chars + COLUMN_BYTES * len(row)
            chunk.positions.append(position)
            chunk.rows.append(row)
            chunk.sizes_bytes.append(chars + ROW_BYTES + COLUMN_BYTES * len(row))
        if self._position == chunk.next_position:
            return None
        chunk.next_position = self._position
        return chunk

    def pass_over(self, records: int) -> int:
        passed = 0
        while passed < records and self._records.next() is not None:
            passed += 1
        self._position += passed
        return passed

    def consumed_bytes(self) -> int:
        return self._records.consumed_bytes()

    def close(self) -> None:
        self._records.close()

    def _fill(self, row: Row, cells: list[str], line: int) -> Fault | None:
        if len(cells) != len(self._names):
            return (
                "bad_record",
                f"line {line}: {len(cells)} field{'' if len(cells) == 1 else 's'}; the header has {len(self._names)}",
            )
        bad = _BAD_BYTES.search("".join(cells))
        if bad:
            return "bad_encoding", f"line {line}: the byte 0x{ord(bad.group()) - 0xDC00:02x} is not UTF-8"
        row.update(zip(self._names, cells, strict=True))
        for name, convert in self._converters:
            value = convert(row[name])
            if isinstance(value, tuple):
                return value[0], f"line {line}: column {name!r}: {value[1]}"
            row[name] = value
        for name in self._missing:
            row[name] = None
        return None

    def _unreadable(self, position: int, cells: list[str], fault: Fault) -> Unreadable:
        clean = [cell.encode("utf-8", "replace").decode("utf-8") for cell in cells]
        text = ",".join(clean)
        if len(clean) == len(self._names):
            text = msgspec.json.encode(dict(zip(self._names, clean, strict=True))).decode("utf-8")
        text = text[:INPUT_CHARS]
        return Unreadable(position, self._file.name, position - self._base, fault[0], fault[1], text)


def _converters(names: list[str], schema: pa.Schema | None) -> list[tuple[str, Callable[[str], Any]]]:
    if schema is None:
        return []
    types = {name: schema.field(name).type for name in names}
    return [(name, _converter(type_)) for name, type_ in types.items() if not pt.is_string(type_)]


def _converter(type_: pa.DataType) -> Callable[[str], Any]:
    """A function from a cell to its value, or to a (code, message) where it has none."""
    if pt.is_boolean(type_):
        return lambda cell: None if cell == "" else _TRUTH.get(cell, _mismatch("bool", cell))
    return _integer if pt.is_integer(type_) else _fraction


def _mismatch(expected: str, cell: str) -> Fault:
    return "type_mismatch", f"expected {expected}, got {cell[:60]!r}"


def _integer(cell: str) -> int | Fault | None:
    if cell == "":
        return None
    if _INTEGER.fullmatch(cell) is None:
        return _mismatch("int64", cell)
    value = int(cell) if len(cell) <= 20 else _MAX_INT64 + 1
    if not _MIN_INT64 <= value <= _MAX_INT64:
        return "bad_number", f"expected int64, which can't hold {cell[:60]}"
    return value


def _fraction(cell: str) -> float | Fault | None:
    if cell == "":
        return None
    if _NUMBER.fullmatch(cell) is None:
        return _mismatch("float64", cell)
    value = float(cell)
    return value if abs(value) != float("inf") else ("bad_number", f"expected float64, which can't hold {cell[:60]}")


class _Cells:
    """What the cells of one column that are not empty have all been so far."""

    __slots__ = ("filled", "integers", "integers_fit", "numbers", "numbers_fit", "truths")

    def __init__(self) -> None:
        self.filled = False
        self.truths = self.integers = self.integers_fit = self.numbers = self.numbers_fit = True

    def add(self, cell: str) -> None:
        if cell == "":
            return
        self.filled = True
        self.truths = self.truths and cell in _TRUTH
        if self.integers:
            self.integers = _INTEGER.fullmatch(cell) is not None
            self.integers_fit = self.integers_fit and isinstance(_integer(cell), int)
        if self.numbers:
            self.numbers = _NUMBER.fullmatch(cell) is not None
            self.numbers_fit = self.numbers_fit and isinstance(_fraction(cell), float)

    def type(self) -> pa.DataType:
        """Text unless every cell is canonical."""
        if self.filled and self.truths:
            return pa.bool_()
        if self.filled and self.integers:
            return pa.int64() if self.integers_fit else pa.string()
        return pa.float64() if self.filled and self.numbers and self.numbers_fit else pa.string()


def infer_csv_schema(names: list[str], rows: Iterable[Row]) -> pa.Schema:
    """The types of the columns over these rows of texts."""
    columns = {name: _Cells() for name in names}
    for row in rows:
        for name, cell in row.items():
            columns[name].add(cell)
    return pa.schema([pa.field(name, cells.type()) for name, cells in columns.items()])


def open_csv(files: list[DataFile], every: list[DataFile], given: pa.Schema | None) -> Source:
    names = list(dict.fromkeys(name for file in files for name in read_header(file)))
    refuse_columns_of(names, files[0])
    if given is not None:
        _check_given_csv(given, names)
        schema = pa.schema([pa.field(name, _given_or_text(given, name)) for name in names])
    else:
        sample = sample_rows(FilesSource(files, pa.schema([]), lambda file, base, _: CsvReader(file, base, None)))
        schema = infer_csv_schema(names, sample)
    return FilesSource(files, schema, lambda file, base, proof: CsvReader(file, base, schema, proof), every=every)


def _given_or_text(given: pa.Schema, name: str) -> pa.DataType:
    return given.field(name).type if name in given.names else pa.string()


def _check_given_csv(given: pa.Schema, names: list[str]) -> None:
    for field in given:
        if field.name not in names:
            raise ConfigError(f"schema: no column {field.name!r} in the CSV; it has {shown_names(names)}")
        if field.type not in (pa.string(), pa.int64(), pa.float64(), pa.bool_()):
            raise ConfigError(f"schema: column {field.name!r}: CSV holds string, int64, float64 or bool")
