"""Types in `schema:` of a source, as Arrow types.

string  bool  int8 ... int64  uint8 ... uint64  float32  float64  list<TYPE>  struct<name: TYPE, ...>
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from penstock.errors import ConfigError

_NAMES = {
    "string": pa.string(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "double": pa.float64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    **{f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def given_schema(columns: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema of column name -> type text. Raises ConfigError."""
    return pa.schema([pa.field(name, _type(str(text), name)) for name, text in columns.items()])


def _type(text: str, column: str) -> pa.DataType:
    word = text.strip()
    if word in _NAMES:
        return _NAMES[word]
    if word.startswith("list<") and word.endswith(">"):
        return pa.list_(_type(word[5:-1], column))
    if word.startswith("struct<") and word.endswith(">"):
        fields = [part.partition(":") for part in _split(word[7:-1])]
        if fields and all(name.strip() and colon for name, colon, _ in fields):
            return pa.struct([pa.field(name.strip(), _type(inner, column)) for name, _, inner in fields])
    raise ConfigError(
        f"schema: column {column!r} has the unknown type {text!r}; known are string, bool, int8 to int64, uint8 to "
        "uint64, float32, float64, list<TYPE> and struct<name: TYPE, ...>"
    )


def _split(text: str) -> list[str]:
    """Parts between the commas that stand outside angle brackets."""
    parts = [""]
    depth = 0
    for character in text:
        depth += (character == "<") - (character == ">")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
