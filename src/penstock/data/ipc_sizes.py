"""What the compressed record batches of an Arrow file or stream unfold to, from their metadata, before they do.

Each buffer of such a batch begins with its size in 8 bytes. Where buffers lie is in the message's metadata, a
flatbuffer (format/Message.fbs of Arrow), of which pyarrow shows nothing; so the few fields are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pyarrow as pa

_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2  # of MessageHeader
_HEADER_TYPE, _HEADER = 1, 2  # fields of Message
_DATA = 1  # field of DictionaryBatch: its RecordBatch
_BUFFERS, _COMPRESSION = 2, 3  # fields of RecordBatch


def unfolded_bytes(messages: pa.ipc.MessageReader) -> Iterator[int]:
    """For each record batch, the bytes that decompression will allocate for it and the dictionaries before it; 0 where
    nothing is compressed. Metadata that can't be understood counts as 0: Arrow itself will refuse it."""
    waiting = 0
    for message in _each(messages):
        if message.type == "dictionary":
            waiting += _of_message(message)
        elif message.type == "record batch":
            yield waiting + _of_message(message)
            waiting = 0


def _each(messages: pa.ipc.MessageReader) -> Iterator[pa.ipc.Message]:
    """Until the end, or to where there are no messages any more."""
    while True:
        try:
            yield messages.read_next_message()
        except (StopIteration, pa.ArrowException, OSError):
            return


def _of_message(message: pa.ipc.Message) -> int:
    metadata, body = memoryview(message.metadata), message.body
    if body is None:
        return 0
    try:
        return _unfolded(metadata, memoryview(body))
    except (struct.error, IndexError, ValueError):
        return 0


def _unfolded(metadata: memoryview, body: memoryview) -> int:
    table = _follow(metadata, 0)
    kind, header = metadata[_field(metadata, table, _HEADER_TYPE)], _field(metadata, table, _HEADER)
    batch = _follow(metadata, header)
    if kind == _DICTIONARY_BATCH:
        batch = _follow(metadata, _field(metadata, batch, _DATA))
    elif kind != _RECORD_BATCH:
        return 0
    if not _field(metadata, batch, _COMPRESSION):
        return 0
    buffers = _follow(metadata, _field(metadata, batch, _BUFFERS))
    (count,) = struct.unpack_from("<I", metadata, buffers)
    total = 0
    for index in range(count):
        offset, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * index)
        if length >= 8:
            (size_bytes,) = struct.unpack_from("<q", body, offset)
            total += max(size_bytes, 0)  # -1: this one is not compressed
    return total


def _follow(data: memoryview, at: int) -> int:
    """Where the offset at `at` leads."""
    (offset,) = struct.unpack_from("<I", data, at)
    return at + int(offset)


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a field of a table lies; 0 where the table has none."""
    (back,) = struct.unpack_from("<i", data, table)
    fields = table - int(back)
    (size,) = struct.unpack_from("<H", data, fields)
    if 4 + 2 * number + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, fields + 4 + 2 * number)
    return table + int(offset) if offset else 0
