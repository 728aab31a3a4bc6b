"""JSON Lines: one object a line.

The common path is one C decode a line and a check of whole columns; everything suspicious takes the slow path in
`json_faults`. Blank lines have no position; an unreadable line has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import msgspec
import pyarrow as pa

from penstock.data.base import Chunk, Row, Source, Unreadable
from penstock.data.checks import Fault, RowChecker
from penstock.data.files import FilesSource
from penstock.data.infer import infer_schema
from penstock.data.json_faults import depth_of, line_fault, may_repeat_a_key, repeated_key
from penstock.data.limits import CHUNK_BYTES, INPUT_CHARS, MAX_DEPTH, ROW_BYTES, SIZED_LINE_BYTES
from penstock.data.lines import Line, LineReader, LongLine, is_blank
from penstock.data.paths import DataFile
from penstock.data.proof import FileProof
from penstock.data.sample import sample_rows
from penstock.data.sizes import memory_of
from penstock.data.streams import FileStream
from penstock.errors import InputError

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)


class _Batch(msgspec.Struct):
    """Decoded lines of one chunk, side by side."""

    rows: list[Row]
    lines: list[bytes]
    positions: list[int]
    numbers: list[int]  # of the line in its file, from 1


class JsonlReader:
    """Reads one JSONL file from its beginning. `base` is the position of its first row.

    checker None: rows come as they are, for inferring a schema.
    """

    def __init__(self, file: DataFile, base: int, checker: RowChecker | None, proof: FileProof | None = None) -> None:
        self._file = file
        self._base = base
        self._position = base
        self._checker = checker
        self._overhead = ROW_BYTES if checker is None else checker.row_overhead
        self._lines = LineReader(FileStream(file, proof))
        self._decode: Callable[[Any], Any] = msgspec.json.Decoder().decode

    def read(self, skip: Callable[[int], bool] | None, max_rows: int) -> Chunk | None:
        self._lines.pass_blank()
        number = self._lines.lines + 1
        offset = self._lines.offset
        lines = self._lines.take(min(max_rows, max(1, CHUNK_BYTES // self._overhead)))
        if not lines:
            return None
        unreadable: list[Unreadable] = []
        batch = _Batch([], [], [], [])
        self._decode_lines(lines, number, offset, skip, batch, unreadable)
        self._drop_faults(batch, unreadable)
        overhead = self._overhead
        sizes = [
            (len(line) if len(line) < SIZED_LINE_BYTES else memory_of(row)) + overhead
            for line, row in zip(batch.lines, batch.rows, strict=True)
        ]
        return Chunk(batch.positions, batch.rows, sizes, unreadable, self._position)

    def pass_over(self, records: int) -> int:
        passed = self._lines.pass_over(records)
        self._position += passed
        return passed

    def consumed_bytes(self) -> int:
        return self._lines.consumed_bytes()

    def close(self) -> None:
        self._lines.close()

    def _decode_lines(
        self,
        lines: list[Line],
        number: int,
        offset: int,
        skip: Callable[[int], bool] | None,
        batch: _Batch,
        unreadable: list[Unreadable],
    ) -> None:
        decode = self._decode
        position = self._position
        for index, line in enumerate(lines):
            if not line:  # blank, as most blank lines are
                continue
            if skip is not None and not is_blank(line) and skip(position):
                position += 1
                continue
            try:
                row = decode(line)
            except _DECODE_ERRORS:
                if is_blank(line):
                    continue
                start = offset + sum(map(len, lines[:index])) + index
                cut_off = self._lines.cut_off and index == len(lines) - 1
                fault = line_fault(line, number + index, start, cut_off)
                unreadable.append(self._unreadable(position, line, fault))
            else:
                batch.rows.append(row)
                batch.lines.append(line)  # type: ignore[arg-type]  # a LongLine does not decode
                batch.positions.append(position)
                batch.numbers.append(number + index)
            position += 1
        self._position = position

    def _drop_faults(self, batch: _Batch, unreadable: list[Unreadable]) -> None:
        faults = self._faults(batch)
        if not faults:
            return
        for index, fault in faults.items():
            unreadable.append(self._unreadable(batch.positions[index], batch.lines[index], fault))
        unreadable.sort(key=lambda record: record.position)
        kept = [index for index in range(len(batch.rows)) if index not in faults]
        batch.rows = [batch.rows[index] for index in kept]
        batch.lines = [batch.lines[index] for index in kept]
        batch.positions = [batch.positions[index] for index in kept]

    def _faults(self, batch: _Batch) -> dict[int, Fault]:
        """Index in the batch -> why that row is none."""
        faults: dict[int, Fault] = {}
        for index, row in enumerate(batch.rows):
            if type(row) is not dict:
                faults[index] = ("bad_json", f"line {batch.numbers[index]}: not a JSON object, but {_kind(row)}")
                batch.rows[index] = {}
                continue
            line = batch.lines[index]
            # Keys inside nested objects are counted only where the outer ones do not explain the colons.
            if line.count(b":") != len(row) and may_repeat_a_key(line, row):
                fault = repeated_key(line, batch.numbers[index])
                if fault is not None:
                    faults[index] = fault
        return self._schema_faults(batch, faults)

    def _schema_faults(self, batch: _Batch, faults: dict[int, Fault]) -> dict[int, Fault]:
        found: dict[int, Fault] = {}
        if self._checker is not None:
            found = self._checker.faults(batch.rows)
        for index in found if self._checker is not None else range(len(batch.rows)):
            if depth_of(batch.rows[index]) > MAX_DEPTH:  # what fits the schema is no deeper than the schema
                found[index] = ("too_deep", f"nested deeper than {MAX_DEPTH} levels")
        for index, (code, message) in found.items():
            faults.setdefault(index, (code, f"line {batch.numbers[index]}: {message}"))
        return faults

    def _unreadable(self, position: int, line: Line, fault: Fault) -> Unreadable:
        beginning = line.beginning if isinstance(line, LongLine) else line[: 4 * INPUT_CHARS]
        text = beginning.decode("utf-8", "replace")[:INPUT_CHARS]
        return Unreadable(position, self._file.name, position - self._base, fault[0], fault[1], text)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def open_jsonl(files: list[DataFile], every: list[DataFile], given: pa.Schema | None) -> Source:
    for file in files:
        _refuse_whole_document(file)
    schema = given
    if schema is None:
        empty = pa.schema([])
        sample = sample_rows(FilesSource(files, empty, lambda file, base, _: JsonlReader(file, base, None)))
        with closing(sample):
            schema = _inferred(sample, files[0])
    checker = RowChecker(schema)
    return FilesSource(files, schema, lambda file, base, proof: JsonlReader(file, base, checker, proof), every=every)


def _inferred(rows: Iterable[Row], first: DataFile) -> pa.Schema:
    try:
        return infer_schema(rows)
    except InputError as error:
        raise error if error.where else InputError(error.message, where=first.name) from None


def _refuse_whole_document(file: DataFile) -> None:
    """A file that is one JSON document over many lines would die line by line; say so once instead."""
    lines = LineReader(FileStream(file))
    try:
        first = lines.take(1)
    finally:
        lines.close()
    begun = first[0].strip() if first and isinstance(first[0], bytes) else b""
    if begun in (b"[", b"{") or (begun.startswith(b"[{") and file.path.name.endswith(".json")):
        what, convert = (
            ("a single JSON list", ".[]") if begun.startswith(b"[") else ("one JSON object on several lines", ".")
        )
        raise InputError(
            f"is {what}, not one object per line; convert it (jq -c '{convert}' FILE > FILE.jsonl)", where=file.name
        )
