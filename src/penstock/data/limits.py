"""The limits of data, each with its unit and its reason."""

from __future__ import annotations

MAX_LINE_BYTES = 32 << 20  # one row is held in memory many times over (line, row, prompt, message)
MAX_DEPTH = 64  # deeper JSON is an attack or a mistake, and would recurse in every later stage
SAMPLE_ROWS = 1000  # rows that fix the schema of an input without types
SAMPLE_BYTES = 256 << 20  # and of larger rows fewer: they are read twice, since the run reads them again
SAMPLE_RECORDS = 100_000  # looked at for them, where none can be read
BLOCK_BYTES = 1 << 20  # one read of a stream; also bounds the bytes of one chunk of JSONL or CSV
INPUT_CHARS = 4096  # how much of an unreadable record is kept in the dead-letter table
MAX_RENDERED_CHARS = 16 << 20  # a prompt beyond this is a template gone wrong
CHUNK_BYTES = 32 << 20  # of rows in memory that one read makes, or one row
MAX_BATCH_BYTES = 1 << 30  # of one compressed record batch of Arrow, which can only be decompressed as a whole
MAX_EXPANDED_BYTES = 1 << 30  # of what one row is expanded into: all of it is committed at once
MAX_COLUMNS = 10_000  # of a source; beyond it, a row is mostly the names of its columns, and Parquet is of no use
MAX_KEYS = 1_000  # of one object, or of all that functions add: more of them are ids, which are data and no columns
MAX_PLACES = 10_000  # columns and fields at all depths of a schema that is inferred
SIZED_LINE_BYTES = 1024  # the memory of longer lines is measured; that of others is their length, nearly
ROW_BYTES = 240  # memory of a row's dict and bookkeeping, without its values
COLUMN_BYTES = 72  # memory of one value's object header and its slot in the dict
MAX_ROWS_PER_FILE_BYTE = 100_000  # a Parquet footer that claims more is corrupt, or a bomb
