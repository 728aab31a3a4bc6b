"""The file formats that Penstock reads and writes, one record each: the only place that lists them."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

__all__ = ["FORMATS", "READ_FORMATS", "WRITTEN_FORMATS", "FormatInfo", "format_function"]


class FormatInfo(NamedTuple):
    """suffixes  of the files that are read with `format: auto`
    is_text   lines of text: the files may be compressed, and are hashed by the byte
    reader    MODULE:FUNCTION of (files, every, given) -> data.base.Source; empty: not read.
              files: data.paths.DataFile of those that are not empty, in order; every: with the empty ones;
              given: the schema that the pipeline names, or None
    writer    MODULE:FUNCTION of () -> data.base.PartWriter; empty: not written
    """

    name: str
    suffixes: tuple[str, ...] = ()
    is_text: bool = False
    reader: str = ""
    writer: str = ""


FORMATS = {
    info.name: info
    for info in (
        FormatInfo(
            "jsonl",
            (".jsonl", ".ndjson", ".json"),
            is_text=True,
            reader="penstock.data.jsonl:open_jsonl",
            writer="penstock.data.parts:jsonl_writer",
        ),
        FormatInfo(
            "parquet",
            (".parquet", ".pq"),
            reader="penstock.data.parquet:open_parquet",
            writer="penstock.data.parts:parquet_writer",
        ),
        FormatInfo("csv", (".csv",), is_text=True, reader="penstock.data.csvs:open_csv"),
        FormatInfo(
            "arrow",
            (".arrow", ".feather", ".arrows"),
            reader="penstock.data.ipc:open_arrow",
            writer="penstock.data.parts:arrow_writer",
        ),
    )
}
READ_FORMATS = tuple(name for name, info in FORMATS.items() if info.reader)
WRITTEN_FORMATS = tuple(name for name, info in FORMATS.items() if info.writer)


def format_function(place: str) -> Any:
    """The function that a record names. Imported where it is used: Parquet alone takes a tenth of a second."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
