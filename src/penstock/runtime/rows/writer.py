"""The writer: a thread that commits, so that an fsync never holds the loop up."""

from __future__ import annotations

import ctypes
import importlib
import queue
import shutil
import threading
import time
from pathlib import Path
from typing import Protocol

from penstock.core.events import Event
from penstock.errors import CommitError
from penstock.faults import fault
from penstock.ledger.base import CommitBatch, Receipt
from penstock.runtime.inbox import Inbox
from penstock.runtime.watch.stalls import Activity, cpu_ns
from penstock.units import byte_size

try:
    _libc: ctypes.CDLL | None = ctypes.CDLL("libc.so.6")
except OSError:  # another C library: it has no such call
    _libc = None

_M_ARENA_MAX = -8  # of glibc's malloc.h
ROWS_JUDGED = 50  # of a batch that waits, to say how much room it needs
RETRY_FULL_DISK_S = 2.0  # how often a full disk is looked at again
SLOW_COMMIT_S = 30.0  # from when on it is said
SHUTDOWN_TIMEOUT_S = 30.0  # at the end a commit that is under way has so long; what it does not finish has not happened


class BatchCommitted(Event):
    receipt: Receipt


class Committer(Protocol):
    def commit(self, batch: CommitBatch) -> Receipt: ...

    def heartbeat(self) -> None: ...


def give_memory_back() -> None:
    """Return what a commit had allocated to the system: allocators keep it in pieces, and a long run would grow."""
    if _libc is not None:
        _libc.malloc_trim(0)


def keep_memory_together() -> None:
    """One allocator for Arrow and the rest, with few arenas: what one thread frees, another can use."""
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    if _libc is not None:
        _libc.mallopt(_M_ARENA_MAX, 2)


class Writer:
    """`waiting`: why the writer is blocked, for the display; "" while it can. `committing`: for who watches."""

    def __init__(self, ledger: Committer, inbox: Inbox, folder: Path, heartbeat_s: float = 10.0) -> None:
        self._ledger = ledger
        self._folder = folder
        self._inbox = inbox
        self._heartbeat_s = heartbeat_s
        self._batches: queue.SimpleQueue[tuple[int, CommitBatch] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="penstock-writer", daemon=True)
        self._closing = threading.Event()
        self.waiting = ""
        self._rows = 0  # of the batch that is being committed
        self._cpu_ns = 0  # what the thread had had of a CPU when that began
        self.committing = Activity(self._describe, patience_s=SLOW_COMMIT_S)

    def start(self) -> None:
        # What commits need is loaded before the first request is out: loading a library holds the interpreter, and
        # replicas would run dry.
        for module in ("pyarrow.compute", "pyarrow.parquet"):
            importlib.import_module(module)
        keep_memory_together()
        self._thread.start()

    def commit(self, cause: int, batch: CommitBatch) -> None:
        """Commit `batch`; BatchCommitted comes to the inbox."""
        self._batches.put((cause, batch))

    def close(self) -> None:
        """Finish the commit that is under way, if any and if the disk answers, and end."""
        self._closing.set()
        self._batches.put(None)
        self._thread.join(SHUTDOWN_TIMEOUT_S)

    def _work(self) -> None:
        try:
            while True:
                try:
                    task = self._batches.get(timeout=self._heartbeat_s)
                except queue.Empty:
                    self._ledger.heartbeat()
                    continue
                if task is None:
                    return
                self._commit(*task)
        except BaseException as error:
            self._inbox.put(error)

    def _commit(self, cause: int, batch: CommitBatch) -> None:
        """A full disk pauses: nothing is lost, replicas stay loaded, and it continues when there is space."""
        while True:
            self._rows, self._cpu_ns = len(batch.finished) + len(batch.dead), cpu_ns(self._thread.native_id)
            self.committing.begin()
            try:
                receipt = self._ledger.commit(batch)
            except CommitError as error:
                if error.fatal or self._closing.is_set():
                    raise
                self.committing.end()
                self.waiting = self._no_room(batch)
                time.sleep(RETRY_FULL_DISK_S)
                continue
            self.committing.end()
            self.waiting = ""
            give_memory_back()
            fault("writer.committed")
            self._inbox.put(BatchCommitted(cause=cause, receipt=receipt))
            return

    def _describe(self, seconds: int) -> str:
        """What takes so long: the disk, or what is computed for it."""
        computed_s = (cpu_ns(self._thread.native_id) - self._cpu_ns) / 1e9
        if computed_s > seconds / 2:
            return f"a commit of {self._rows:,} rows has taken {seconds} s so far: encoding large rows"
        return f"a commit has taken {seconds} s so far: the disk of {self._folder} is slow or does not respond"

    def _no_room(self, batch: CommitBatch) -> str:
        free, need = byte_size(shutil.disk_usage(self._folder).free), byte_size(_bytes_of(batch))
        rows = len(batch.finished) + len(batch.dead)
        return f"disk full: {rows:,} rows waiting, up to {need} needed, {free} free in {self._folder}"


def _bytes_of(batch: CommitBatch) -> int:
    """What the rows of a batch take before compression, judged by some of them."""
    some = batch.finished[:: max(1, len(batch.finished) // ROWS_JUDGED)] or batch.dead
    each = sum(len(str(row)) for row in some) // max(1, len(some))
    return each * (len(batch.finished) + len(batch.dead))
