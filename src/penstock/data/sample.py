"""The first rows of a source, for type inference."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from penstock.data.base import Row
from penstock.data.files import FilesSource
from penstock.data.infer import refuse_columns
from penstock.data.limits import SAMPLE_BYTES, SAMPLE_RECORDS, SAMPLE_ROWS
from penstock.data.paths import DataFile
from penstock.errors import InputError


def sample_rows(source: FilesSource) -> Generator[Row]:
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


def refuse_columns_of(names: Sequence[str], file: DataFile) -> None:
    try:
        refuse_columns(names, len(names))
    except InputError as error:
        raise InputError(error.message, where=file.name) from None
