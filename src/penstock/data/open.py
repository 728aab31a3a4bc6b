"""Opening a source: from paths, or from rows in Python, to something that yields rows in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from penstock.data.base import Row, Source
from penstock.data.files import FileReader, FilesSource
from penstock.data.lists import ListSource
from penstock.data.paths import DataFile, resolve
from penstock.data.proof import FileProof
from penstock.data.schema_text import given_schema
from penstock.errors import InputError
from penstock.formats import FORMATS, format_function


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
    source: Source = format_function(FORMATS[files[0].format].reader)(files, every, given)
    return source


def open_rows(rows: Sequence[Row]) -> Source:
    """Rows given in Python as a source. Raises InputError for a row that is no dict."""
    return ListSource(list(rows))


def _no_reader(file: DataFile, base: int, proof: FileProof | None) -> FileReader:
    raise InputError("the file is empty", where=file.name)
