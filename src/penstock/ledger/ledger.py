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
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.core.counts import Counts
from penstock.data.base import Source
from penstock.errors import CommitError, Fenced, InvariantError, LedgerDamaged, PenstockError, RunOwned
from penstock.faults import fault
from penstock.ledger.base import CommitBatch, LedgerState, PaidResults, Receipt
from penstock.ledger.batch import Locate, check_batch
from penstock.ledger.bits import EndedPositions
from penstock.ledger.carried import CarriedRows
from penstock.ledger.entry import Entry
from penstock.ledger.files import Files, commit_error
from penstock.ledger.keyed import Key
from penstock.ledger.layout import Layout
from penstock.ledger.manifest import LostRace, Manifest
from penstock.ledger.opening import BEGINNING, claim, finish_moves, refuse_lost_manifest, sweep
from penstock.ledger.owner import Owner, read_owner, refuse_if_owned
from penstock.ledger.partial import read_partial
from penstock.ledger.phase_writer import PhaseWriter, TableFactory
from penstock.ledger.publish import publish_below
from penstock.ledger.retry import Retry
from penstock.ledger.retry_parts import Retried, stage_retry
from penstock.ledger.run_file import Diff, prepare, run_file
from penstock.ledger.stage import Stage

__all__ = ["Ledger"]


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
        self._order = order
        self._phases = phases
        self._writers = writer_for(sink_format), writer_for("parquet")
        self._locate = locate or (lambda position: ("", position))
        self._phase: PhaseWriter | None = None
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
        self._phase = PhaseWriter(
            self._layout,
            self._files,
            self.entry,
            table,
            self._writers,
            phases=self._phases,
            order=self._order,
            locate=self._locate,
        )
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

    def retry(
        self, source: Source, codes: Collection[str] = (), *, without: Collection[Key] = (), takeover: bool = False
    ) -> Retry:
        """The retry that was begun in this run, which has ended; else a new one, of all dead rows or those with one of
        `codes`.

        source    of the run: runs of an older Penstock have dead rows that are found in it by name
        without   keys of dead rows that are left out
        takeover  another process that still seems to work on the retry does not count

        Raises LedgerDamaged; UsageError where dead rows can't be distinguished; RunOwned.
        """
        return Retry(self._layout, self._files, self.entry, source, codes, without=without, takeover=takeover)

    def put_back(self, retry: Retry, source: Source, counted: Counts) -> Counts:
        """What became of the rows of a retry that has ended takes their places, in one entry (see retry_parts.py); the
        run's totals after it. counted: what the run has counted for them. Once more it does nothing.

        Raises as `commit` does; LedgerDamaged where a part is not as it was written.
        """
        if self.entry.retries < retry.number:
            try:
                self.commit_retry(lambda: retry.outcome(self.entry, source, counted))
            except OSError as error:
                raise commit_error(error, "put rows that were run again into place", self._layout.out_dir) from error
        retry.remove()
        return self.entry.counts

    def commit_retry(self, outcome: Callable[[], Retried]) -> None:
        """For `put_back`. outcome: what became of the rows, once the run is ours. Raises OSError too."""
        self._claim_finished_run()
        stage, before = Stage(self._layout, self._files, self.entry.epoch, self.entry), self.entry
        files, manifest, writers = self._files, self._manifest, self._writers
        self._put(
            stage, lambda: stage_retry(stage, self._layout, files, manifest, before, outcome(), writers, self._order)
        )

    def heartbeat(self) -> None:
        """Write a heartbeat, at most one every few seconds. Raises Fenced if another process has taken over."""
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
        started, phase, before = time.monotonic(), self._phase, self.entry
        if phase is None:
            raise InvariantError(f"a batch was to be committed before phase {before.phase} began")
        check_batch(batch, phase.order)
        ended = self._ended.advanced(batch.ended, batch.watermark)
        below = publish_below(batch, before, ended, phase.order)
        self._claim_finished_run()
        self.heartbeat()  # a writer that is never idle finds no other time
        before, previous = self.entry, self._manifest.hash_of(self.entry.seq)
        encoded = phase.encode(batch)
        fault("commit.encoded")
        stage = Stage(self._layout, self._files, before.epoch, before)
        self._put(stage, lambda: phase.stage(stage, batch, encoded, before, previous, ended, below))
        self._ended = EndedPositions.decode(self.entry.watermark, self.entry.ended) if batch.final else ended
        return Receipt(
            seq=self.entry.seq,
            rejected=encoded.rejected,
            part_rows=stage.part_rows,
            bytes_written=stage.bytes_written,
            took_s=time.monotonic() - started,
            counts=self.entry.counts,
            moved=phase.moved(batch, encoded),
        )

    def _put(self, stage: Stage, make: Callable[[], Entry]) -> None:
        """Write the files of `stage`, link the entry that names them, and show them. Without an entry nothing stays."""
        try:
            entry = make()
        except BaseException:
            stage.discard()
            raise
        try:
            self._append(entry)
        except (OSError, Fenced):
            stage.discard()  # certainly no entry; after anything else there may be one, and its files stay
            raise
        self.entry = entry
        self._show(entry)

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
    """The entry to continue from, and our claim; none on a finished run."""
    for folder in layout.folders():
        files.make_folder(folder)  # a copy of a run may lack those that were empty
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
