"""One entry of the manifest: everything that a run has made durable, as of one commit.

On disk an entry is JSON: `{"format": 3, "hash": H, "entry": {...}}`, where H is the blake2b of the bytes of `entry`.
Each entry holds the hash of the one before, so that the entries form a chain from the first to the newest. An entry
is self-contained: the newest one has the whole state.
"""

from __future__ import annotations

import hashlib

import msgspec

from penstock.core.counts import Counts
from penstock.core.shape import SourceMark
from penstock.errors import LedgerDamaged

__all__ = [
    "FORMAT",
    "Entry",
    "PartFact",
    "SegmentFact",
    "decode_entry",
    "encode_entry",
    "entry_hash",
    "hash_bytes",
    "new_hash",
]

FORMAT = 3
READABLE = (2, FORMAT)  # 2: parts of dead/ had no keys


class SegmentFact(msgspec.Struct, frozen=True):
    """A live segment. `first`, `last`: the lowest and highest position in it; `hash` is of the whole file.

    begun: of what is carried over to a next phase, how many source rows begin in it (the last one of the segment before
    may continue in it); else 0
    """

    name: str
    rows: int
    bytes: int
    hash: str
    first: int
    last: int
    begun: int = 0


class PartFact(msgspec.Struct, frozen=True):
    """A part that this entry adds, or puts in the place of one of the same name. `staged`: its name in staging/ until
    the move to data/ or dead/ is done. `keys`: the file that tells its rows (part_keys.py); "" for a part without a
    row, and in dead/ of a run that an older Penstock made. `keys_hash`: of that file, like `hash`; "" in older runs."""

    name: str
    staged: str
    rows: int
    bytes: int
    hash: str
    keys: str = ""
    keys_hash: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run after commit `seq`.

    kind          epoch: a coordinator took the run over; commit: work became durable; phase: and that ended a phase;
                  retry: dead rows that were run again took their places
    owner         the token of the coordinator that wrote it
    previous      hash of entry seq - 1; "" for the first
    phase         the phase that is running, from 0; watermark, ended and published_to are positions of that phase
    phase_counts  the totals of the run when the phase began
    inputs        what the phase reads: the rows that the phase before carried over; () in the first
    input_schema  their columns, as `schema`
    carried       rows that the phase has finished for the next one, in order, below published_to
    data_schema   the columns of data/ while a phase before the last is running again; "" until they are fixed
    written       wall clock, for people
    ended         positions above the watermark that have ended (see bits.py)
    published_to  with order input: every row of a lower position stands in data/
    segments      all live segments, oldest first
    partial       live segments of results of rows that have not ended, oldest first (see partial.py)
    parts, dead_parts, drops   of this entry alone: parts to move into data/ and dead/, and files (relative to the run
                  directory) that nothing refers to any more
    data_tail, dead_tail   the small parts at the end of data/ and dead/, which are joined when they are many
    parts_total, dead_parts_total   the numbers of the next parts
    retries       how many times dead rows were run again
    placeholder   the empty part that stands in data/ because a run ended without output; "" where there is none
    schema        the columns that the phase writes, Arrow IPC in base64; "" until they are fixed
    mark          what was read of the source; None in runs of older versions
    """

    seq: int
    epoch: int
    kind: str
    owner: str
    previous: str
    written: float
    watermark: int = 0
    ended: str = ""
    counts: Counts = Counts()
    published_to: int = 0
    total_rows: int | None = None
    finished: bool = False
    phase: int = 0
    phase_counts: Counts = Counts()
    inputs: tuple[SegmentFact, ...] = ()
    input_schema: str = ""
    carried: tuple[SegmentFact, ...] = ()
    data_schema: str = ""
    segments: tuple[SegmentFact, ...] = ()
    partial: tuple[SegmentFact, ...] = ()
    parts: tuple[PartFact, ...] = ()
    dead_parts: tuple[PartFact, ...] = ()
    drops: tuple[str, ...] = ()
    data_tail: tuple[PartFact, ...] = ()
    dead_tail: tuple[PartFact, ...] = ()
    parts_total: int = 0
    dead_parts_total: int = 0
    part_rows_total: int = 0
    retries: int = 0
    placeholder: str = ""
    schema: str = ""
    mark: SourceMark | None = None


class _Envelope(msgspec.Struct):
    format: int
    hash: str
    entry: msgspec.Raw


def new_hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def hash_bytes(data: bytes | memoryview) -> str:
    """The hash of the ledger: blake2b of 16 bytes, in hexadecimal. It guards against damage, not against malice."""
    digest = new_hash()
    digest.update(data)
    return digest.hexdigest()


def encode_entry(entry: Entry) -> bytes:
    body = msgspec.json.encode(entry)
    return msgspec.json.encode(_Envelope(FORMAT, hash_bytes(body), msgspec.Raw(body))) + b"\n"


def entry_hash(data: bytes, where: str) -> str:
    """The hash by which the next entry names this one. Raises LedgerDamaged."""
    return _open_envelope(data, where).hash


def decode_entry(data: bytes, where: str) -> Entry:
    """The entry in the file `where`. Raises LedgerDamaged where it is cut short, altered or of another format."""
    envelope = _open_envelope(data, where)
    if envelope.format not in READABLE:
        raise LedgerDamaged(
            f"the entry has format {envelope.format}; this Penstock reads formats {READABLE[0]} to {FORMAT}. Use the "
            "version that wrote it.",
            where=where,
        )
    body = memoryview(envelope.entry)
    if hash_bytes(body) != envelope.hash:
        raise LedgerDamaged("the entry does not match its hash: the file was altered or damaged", where=where)
    try:
        return msgspec.json.decode(body, type=Entry)
    except msgspec.MsgspecError as error:
        raise LedgerDamaged(f"the entry can't be read: {error}", where=where) from error


def _open_envelope(data: bytes, where: str) -> _Envelope:
    try:
        return msgspec.json.decode(data, type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LedgerDamaged(f"not a complete manifest entry: {error}", where=where) from error
