"""Opening a source: from paths, or from rows in Python, to something that yields rows in a fixed order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing

import pyarrow as pa

from penstock.data.base import Row, Source
from penstock.data.checks import RowChecker
from penstock.data.csvs import CsvReader, infer_csv_schema, read_header
from penstock.data.files import FileReader, FilesSource
from penstock.data.infer import infer_schema, refuse_columns
from penstock.data.jsonl import JsonlReader
from penstock.data.limits import MAX_COLUMNS, SAMPLE_BYTES, SAMPLE_RECORDS, SAMPLE_ROWS
from penstock.data.lines import LineReader
from penstock.data.lists import ListSource
from penstock.data.paths import DataFile, resolve
from penstock.data.proof import Content, FileProof, byte_content
from penstock.data.schema_text import given_schema
from penstock.data.sizes import shown_names
from penstock.data.streams import FileStream
from penstock.data.tables import Batches, TableReader
from penstock.errors import ConfigError, InputError


def open_source(paths: Sequence[str] | str, format: str = "auto", schema: Mapping[str, str] | None = None) -> Source:
    """The source that `paths` (a file, a list, a glob, a folder) mean.

    schema  column name -> type text, instead of the types inferred from the first thousand rows

    Raises InputError where a file can't be found, read or understood at all, ConfigError for a wrong `schema`.
    """
    every = resolve(paths, format)
    files = [file for file in every if file.size_bytes]
    given = None if schema is None else given_schema(schema)
    if not files:
        return FilesSource([], given or pa.schema([]), _no_reader, rows=[], every=every)
    if files[0].format == "jsonl":
        return _open_jsonl(files, every, given)
    if files[0].format == "csv":
        return _open_csv(files, every, given)
    return _open_tables(files, every, given)


def open_rows(rows: Sequence[Row]) -> Source:
    """Rows given in Python as a source. Raises InputError for a row that is no dict."""
    return ListSource(list(rows))


def _no_reader(file: DataFile, base: int, proof: FileProof | None) -> FileReader:
    raise InputError("the file is empty", where=file.name)


def _sample(source: FilesSource) -> Generator[Row]:
    """The first thousand rows that can be read, a few at a time, and fewer where they are large; of a file that is
    something else entirely, none in good time."""
    count = position = size_bytes = 0
    try:
        while count < SAMPLE_ROWS and size_bytes < SAMPLE_BYTES and (count or position < SAMPLE_RECORDS):
            chunk = source.read(position, None, SAMPLE_ROWS - count)
            if chunk is None:
                break
            position = chunk.next_position
            count += len(chunk.rows)
            size_bytes += sum(chunk.sizes_bytes)
            yield from chunk.rows
    finally:
        source.close()


def _open_jsonl(files: list[DataFile], every: list[DataFile], given: pa.Schema | None) -> Source:
    for file in files:
        _refuse_whole_document(file)
    schema = given
    if schema is None:
        empty = pa.schema([])
        sample = _sample(FilesSource(files, empty, lambda file, base, _: JsonlReader(file, base, None)))
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
        what, convert = ("one JSON list", ".[]") if begun.startswith(b"[") else ("one JSON object over many lines", ".")
        raise InputError(
            f"is {what}, not one object per line; convert it (jq -c '{convert}' FILE > FILE.jsonl)", where=file.name
        )


def _open_csv(files: list[DataFile], every: list[DataFile], given: pa.Schema | None) -> Source:
    names = list(dict.fromkeys(name for file in files for name in read_header(file)))
    _refuse_columns(names, files[0])
    if given is not None:
        _check_given_csv(given, names)
        schema = pa.schema([pa.field(name, _given_or_text(given, name)) for name in names])
    else:
        sample = _sample(FilesSource(files, pa.schema([]), lambda file, base, _: CsvReader(file, base, None)))
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


def _open_tables(files: list[DataFile], every: list[DataFile], given: pa.Schema | None) -> Source:
    schema = pa.schema([])
    rows: list[int] = []
    counted = True
    for file in files:
        batches = _batches(file)
        schema = _joined(schema, batches.schema, file)
        counted = counted and batches.rows is not None
        rows.append(batches.rows or 0)
        batches.close()
    _check_given_tables(given, schema)
    return FilesSource(
        files,
        schema,
        lambda file, base, proof: TableReader(file, base, schema, _batches(file, proof), proof),
        rows=rows if counted else None,
        every=every,
        content=_content(files[0]),
    )


def _batches(file: DataFile, proof: FileProof | None = None) -> Batches:
    if file.format == "parquet":
        from penstock.data.parquet import ParquetBatches

        return ParquetBatches(file, proof)
    from penstock.data.ipc import IpcBatches

    return IpcBatches(file, proof)


def _content(file: DataFile) -> Content:
    """How the files of a table format are hashed: Parquet by row groups, Arrow by its bytes."""
    if file.format != "parquet":
        return byte_content
    from penstock.data.parquet import parquet_content

    return parquet_content


def _joined(schema: pa.Schema, more: pa.Schema, file: DataFile) -> pa.Schema:
    """Columns of both; a column has one type in all files, except that one without values fits any."""
    if len(more.names) > MAX_COLUMNS:
        _refuse_columns(more.names, file)
    if not schema.names or schema.equals(more):
        return more
    for field in more:
        if field.name not in schema.names:
            schema = schema.append(field)
            continue
        index = schema.get_field_index(field.name)
        known = schema.field(index).type
        if known == field.type or field.type == pa.null():
            continue
        if known != pa.null():
            raise InputError(
                f"column {field.name!r} is {field.type} here and {known} in the files before; write the files with "
                "one type",
                where=file.name,
            )
        schema = schema.set(index, field)
    return schema


def _refuse_columns(names: Sequence[str], file: DataFile) -> None:
    try:
        refuse_columns(names, len(names))
    except InputError as error:
        raise InputError(error.message, where=file.name) from None


def _check_given_tables(given: pa.Schema | None, schema: pa.Schema) -> None:
    for field in given or ():
        if field.name not in schema.names:
            raise ConfigError(f"schema: no column {field.name!r} in the files; they have {shown_names(schema.names)}")
        found = schema.field(field.name).type
        if found != field.type:
            raise ConfigError(f"schema: column {field.name!r} is {found} in the files, not {field.type}")
