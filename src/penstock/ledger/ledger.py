"""The ledger of a run: what is done, durably, exactly once.

    with Ledger.open(out, ...) as ledger:      the run is ours, and what was done before is in `ledger.state`
        receipt = ledger.commit(batch)         blocking; outputs, dead rows and watermark together, or nothing
        ledger.heartbeat()                     from any thread, now and then

One commit, and what a crash leaves behind at each step:

    1. rows become parts and a segment in files nobody knows, synced          garbage
    2. the manifest entry that names them is linked into place, synced        the commit counts
    3. parts are moved to data/ and dead/, synced                             open() finishes the moves
    4. files that the entry dropped are removed                               open() removes them
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from penstock.core.counts import Counts
from penstock.errors import CommitError, Fenced, InvariantError, LedgerDamaged, PenstockError, RunOwned
from penstock.faults import fault
from penstock.ledger.base import CommitBatch, LedgerState, PaidResults, Receipt
from penstock.ledger.batch import Encoded, Locate, TableBuilder, check_batch, encode_batch, moved_by
from penstock.ledger.bits import EndedPositions
from penstock.ledger.carried import CarriedRows, after_phase
from penstock.ledger.entry import Entry, SegmentFact
from penstock.ledger.files import Files, commit_error
from penstock.ledger.joining import Joined, join_tails, tail_after
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import LostRace, Manifest
from penstock.ledger.opening import BEGINNING, claim, finish_moves, refuse_lost_manifest, successor, sweep
from penstock.ledger.owner import Owner, read_owner, refuse_if_owned
from penstock.ledger.part_keys import DeadKey
from penstock.ledger.partial import read_partial, stage_partial
from penstock.ledger.publish import Publisher, publish_below
from penstock.ledger.retry import Again, stage_retry
from penstock.ledger.run_file import Diff, prepare, run_file
from penstock.ledger.segments import decode_schema, encode_schema
from penstock.ledger.stage import Stage

__all__ = ["Ledger", "TableFactory"]

TableFactory = Callable[[pa.Schema | None], TableBuilder]


class Ledger:
    """An opened run. `state` is what was known when it was opened; `entry` is the newest commit."""

    def __init__(
        self,
        layout: Layout,
        files: Files,
        entry: Entry,
        owner: Owner | None,
        *,
        sink_format: str,
        order: str,
        locate: Locate | None,
        phases: int,
    ) -> None:
        """Use `open`. `owner` None: a finished run, which is claimed only if a commit follows."""
        from penstock.data.parts import writer_for

        self._layout = layout
        self._files = files
        self._manifest = Manifest(layout, files)
        self._owner = owner
        self._sink_order = order
        self._phases = phases
        self._writer, self._dead_writer = writer_for(sink_format), writer_for("parquet")
        self._locate = locate or (lambda position: ("", position))
        self._builder: TableBuilder | None = None
        self._schema_seen: pa.Schema | None = None
        self._schema_text = entry.schema
        self._failure: PenstockError | None = None
        self._ended = EndedPositions.decode(entry.watermark, entry.ended)
        self.entry = entry
        self.state = _state(entry, self._ended)

    @classmethod
    def open(
        cls,
        out_dir: Path,
        *,
        identity: dict[str, Any],
        input_identity: dict[str, Any],
        table: TableFactory | None = None,
        sink_format: str,
        order: str,
        diff: Diff,
        takeover: bool = False,
        locate: Locate | None = None,
        files: Files | None = None,
        cut: Sequence[int] = (),
    ) -> Ledger:
        """Begin the run in `out_dir`, or take it up where it stands. A finished run is opened without claiming it.

        identity, input_identity  plain JSON data: what makes this run this run; `diff(old, new)` says in lines what
                                  differs between two of them
        table      see `begin_phase`; None: the caller calls it
        order      input | completion
        locate     (file, ordinal in it) of a position, for rows that can't be written
        cut        of a new run: the steps at which its phases end; a resume keeps that of the beginning

        Raises RunMismatch (another run, another input, somebody's folder), RunOwned, UsageError (the folder can't be
        made), LedgerDamaged, CommitError.
        """
        layout, files = Layout(Path(out_dir)), files or Files()
        run = prepare(layout, files, run_file(identity, input_identity, sink_format, order, cut), diff)
        if not takeover:
            refuse_if_owned(read_owner(files, layout.owner), layout.out_dir, time.time())
        try:
            entry, owner = _take_up(layout, files)
        except OSError as error:
            raise commit_error(error, "open the run", layout.out_dir) from error
        ledger = cls(
            layout, files, entry, owner, sink_format=sink_format, order=order, locate=locate, phases=run.phases
        )
        if table is not None:
            ledger.begin_phase(table)
        return ledger

    def claim(self) -> None:
        """Own the run from here on, also where it was finished: for who has work to do on it, before that begins.

        Raises RunOwned where another start was quicker; LedgerDamaged, CommitError.
        """
        try:
            self._claim_finished_run()
        except Fenced as error:
            raise RunOwned(
                "another process has just updated this run. Run the command again.",
                where=str(self._layout.out_dir),
            ) from error
        except OSError as error:
            raise commit_error(error, "start on the run", self._layout.out_dir) from error

    def _claim_finished_run(self) -> None:
        """A finished run that continues after all (with a higher limit) is claimed before it does, at the latest by its
        first commit."""
        if self._owner is not None:
            return
        seen = self.entry.seq
        self.entry, self._owner = claim(self._layout, self._files, self._manifest, self.entry)
        if self.entry.seq != seen + 1:
            raise Fenced("another process has updated this run in the meantime.", where=str(self._layout.out_dir))

    def begin_phase(self, table: TableFactory) -> None:
        """Take up the phase that the newest entry names. `table` makes the builder of its rows' table: it gets the
        columns that were fixed before, or None."""
        where = str(self._layout.entry(self.entry.seq))
        self._builder = table(decode_schema(self.entry.schema, where) if self.entry.schema else None)
        self._schema_seen, self._schema_text = None, self.entry.schema
        self._ended = EndedPositions.decode(self.entry.watermark, self.entry.ended)
        self.state = _state(self.entry, self._ended)

    def inputs(self) -> CarriedRows:
        """What the phase reads, after the first."""
        return CarriedRows(self._layout, self._files, self.entry)

    def paid(self) -> PaidResults:
        """Results of rows of this phase that have not ended. Raises LedgerDamaged, OSError."""
        return read_partial(self._layout, self._files, self.entry)

    @property
    def phases(self) -> int:
        return self._phases

    @property
    def _carries(self) -> bool:
        """Whether the rows that this phase finishes go on to another."""
        return self.entry.phase < self._phases - 1

    @property
    def _order(self) -> str:
        return "input" if self._carries else self._sink_order

    def commit(self, batch: CommitBatch) -> Receipt:
        """Make `batch` durable as a whole. Blocks on the disk; call it from one thread only.

        Raises CommitError: with `fatal` False nothing happened, and the same batch may be committed again; else, and
        after Fenced (another coordinator has taken over), this ledger takes no more. InvariantError: a wrong batch.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._commit(batch)
        except (OSError, PenstockError) as error:
            failure = (None if isinstance(error, Fenced) else self._fenced()) or (
                commit_error(error, f"commit {len(batch.finished)} rows", self._layout.out_dir)
                if isinstance(error, OSError)
                else error
            )
            if isinstance(failure, Fenced) or (isinstance(failure, CommitError) and failure.fatal):
                self._failure = failure
            if failure is error:
                raise
            raise failure from error

    def commit_retry(self, again: Again) -> None:
        """Dead rows that were run again take their places, in one entry (see again.py). The run is finished.

        Raises as `commit` does; LedgerDamaged where a part is not as it was written.
        """
        self._claim_finished_run()
        stage = Stage(self._layout, self._files, self.entry.epoch, self.entry)
        before = self.entry
        try:
            drops = stage_retry(
                stage,
                self._layout,
                self._files,
                self._manifest,
                before,
                again,
                (self._writer, self._dead_writer),
                order=self._sink_order,
            )
            entry = successor(
                before,
                self._manifest.hash_of(before.seq),
                kind="retry",
                counts=again.counts,
                parts=tuple(stage.parts),
                dead_parts=tuple(stage.dead_parts),
                drops=tuple(drops),
                parts_total=stage.parts_total,
                dead_parts_total=before.dead_parts_total + bool(again.dead),
                data_tail=(),
                dead_tail=(),
                part_rows_total=again.counts.out,
                placeholder="" if stage.parts else before.placeholder,
                retries=before.retries + 1,
            )
        except OSError as error:
            stage.discard()
            raise commit_error(error, "commit retried rows", self._layout.out_dir) from error
        except BaseException:
            stage.discard()
            raise
        self._append(entry)
        self.entry = entry
        self._show(entry)

    def heartbeat(self) -> None:
        """Say that we live; cheap, at most a write every few seconds. Raises Fenced when another has taken over."""
        now = time.time()
        if self._owner is None or not self._owner.due(now):
            return
        fenced = self._fenced()  # who has taken over may have ended since, and its record with it
        if fenced is not None:
            self._failure = fenced
            raise fenced
        self._owner.beat(now)

    def close(self) -> None:
        """Give the run up. What was not committed is lost, and will be done again."""
        self._failure = self._failure or CommitError("the run was closed", where=str(self._layout.out_dir))
        if self._owner is not None:
            owner, self._owner = self._owner, None
            try:
                owner.release()
            except OSError:
                return  # the next start sees that this process is gone
            fault("close.owner_released")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _commit(self, batch: CommitBatch) -> Receipt:
        started = time.monotonic()
        check_batch(batch, self._order)
        ended = self._ended.advanced(batch.ended, batch.watermark)
        below = publish_below(batch, self.entry, ended, self._order)
        self._claim_finished_run()
        self.heartbeat()  # a writer that is never idle finds no other time
        if self._builder is None:
            raise InvariantError(f"a batch was to be committed before phase {self.entry.phase} began")
        encoded = encode_batch(self._builder, batch.finished, batch.dead, self._locate, carries=self._carries)
        fault("commit.encoded")
        stage = Stage(self._layout, self._files, self.entry.epoch, self.entry)
        publish = stage.add_carried if self._carries else partial(stage.add_parts, writer=self._writer)
        publisher = Publisher(self._layout, self._files, self.entry, publish)
        try:
            live = publisher.stage(stage, encoded.table, below)
            joined = self._stage_rest(stage, batch, encoded, self._builder)
            unfinished = stage_partial(stage, self._layout, self._files, self.entry, batch.partial, ended)
            moved = moved_by(batch, encoded.rejected, carries=self._carries)
            entry = self._next(batch, batch.counts + moved, stage, live, unfinished, joined, ended, below)
        except BaseException:
            stage.discard()
            raise
        try:
            self._append(entry)
        except (OSError, Fenced):
            stage.discard()  # certainly no entry; after anything else there may be one, and its files stay
            raise
        self.entry, self._ended = entry, EndedPositions.decode(entry.watermark, entry.ended) if batch.final else ended
        self._show(entry)
        took_s = time.monotonic() - started
        return Receipt(entry.seq, encoded.rejected, stage.part_rows, stage.bytes_written, took_s, entry.counts, moved)

    def _stage_rest(self, stage: Stage, batch: CommitBatch, encoded: Encoded, builder: TableBuilder) -> Joined:
        from penstock.data.dead import dead_table

        writers = (self._writer, self._dead_writer)
        joined = join_tails(stage, self._layout, self._files, self.entry, writers)
        dead = sorted([*batch.dead, *encoded.rejected], key=lambda row: (row.position, row.path))
        if dead:
            keys = [DeadKey((row.origin, tuple(row.path)), self.entry.phase) for row in dead]
            stage.add_dead(dead_table(dead), keys, self._dead_writer)
        if batch.final and not self._carries and self.entry.parts_total == 0 and not stage.parts:
            stage.add_placeholder(builder.build([])[0], self._writer)
        stage.sync()
        return joined

    def _next(
        self,
        batch: CommitBatch,
        counts: Counts,
        stage: Stage,
        live: tuple[SegmentFact, ...],
        unfinished: tuple[SegmentFact, ...],
        joined: Joined,
        ended: EndedPositions,
        below: int,
    ) -> Entry:
        before, needed = self.entry, (*live, *unfinished)
        placeholder = stage.placeholder or ("" if stage.parts else before.placeholder)
        drops = [
            f".penstock/segments/{segment.name}"
            for segment in (*before.segments, *before.partial)
            if segment not in needed
        ]
        drops += joined.drops
        new = tuple(part for part in stage.parts if f"data/{part.name}" not in joined.names and part.rows)
        new_dead = tuple(part for part in stage.dead_parts if f"dead/{part.name}" not in joined.names)
        if before.placeholder and not placeholder:
            drops.append(f"data/{before.placeholder}")
        entry = successor(
            before,
            self._manifest.hash_of(before.seq),
            kind="commit",
            watermark=batch.watermark,
            ended=ended.encode(),
            counts=counts,
            published_to=below if self._order == "input" else 0,
            total_rows=batch.total_rows if batch.total_rows is not None else before.total_rows,
            finished=batch.final and not self._carries,
            segments=live,
            partial=unfinished,
            carried=(*before.carried, *stage.carried),
            parts=tuple(stage.parts),
            dead_parts=tuple(stage.dead_parts),
            drops=tuple(drops),
            parts_total=stage.parts_total,
            data_tail=tail_after(joined.data, new),
            dead_tail=tail_after(joined.dead, new_dead),
            dead_parts_total=before.dead_parts_total + len(new_dead),
            part_rows_total=before.part_rows_total + stage.part_rows,
            placeholder=placeholder,
            schema=self._fixed_schema() if batch.finished else before.schema,
            mark=batch.mark or before.mark,
        )
        return after_phase(entry, self._phases) if batch.final and self._phases > 1 else entry

    def _fixed_schema(self) -> str:
        assert self._builder is not None
        schema = self._builder.fixed_schema()
        if schema is not None and schema is not self._schema_seen:
            self._schema_seen, self._schema_text = schema, encode_schema(schema)
        return self._schema_text

    def _fenced(self) -> Fenced | None:
        """Whether another coordinator has taken over: then its tidying, and no disk, made us fail."""
        try:
            follower = self._manifest.successor_of(self.entry)
        except (OSError, LedgerDamaged):
            return None
        return None if follower is None or follower.owner == self.entry.owner else self._fenced_by(follower)

    def _fenced_by(self, follower: Entry) -> Fenced:
        return Fenced(
            f"another coordinator (epoch {follower.epoch}, ours is {self.entry.epoch}) has taken over this run; "
            "it will redo the work that this process had not committed.",
            where=str(self._layout.out_dir),
        )

    def _append(self, entry: Entry) -> None:
        try:
            self._manifest.append(entry)
        except LostRace as lost:
            raise self._fenced_by(lost.entry) from None

    def _show(self, entry: Entry) -> None:
        """Move, drop, sweep. The commit counts already, and must not be made twice: a failure here is fatal."""
        try:
            finish_moves(self._layout, self._files, entry)
            fault("commit.moved")
            if entry.finished:
                sweep(self._layout, self._files, entry)
        except OSError as error:
            failure = commit_error(error, "move committed parts into place")
            failure.fatal = True
            raise failure from error
        fault("commit.done")


def _take_up(layout: Layout, files: Files) -> tuple[Entry, Owner | None]:
    """The entry to go on from, and our claim; none on a finished run."""
    manifest = Manifest(layout, files)
    newest = manifest.newest()
    if newest is None:
        refuse_lost_manifest(layout, files)
    elif newest.finished:
        finish_moves(layout, files, newest)
        sweep(layout, files, newest)
        return newest, None
    return claim(layout, files, manifest, newest or BEGINNING)


def _state(entry: Entry, ended: EndedPositions) -> LedgerState:
    return LedgerState(
        epoch=entry.epoch,
        seq=entry.seq,
        watermark=entry.watermark,
        ended_above=set(ended.above()),
        counts=entry.counts,
        total_rows=entry.total_rows,
        finished=entry.finished,
        fresh=entry.seq == 1 and entry.kind == "epoch",
        phase=entry.phase,
        phase_counts=entry.phase_counts,
        mark=entry.mark,
    )
