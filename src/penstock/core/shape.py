"""What the core needs to know of a phase: the steps as a graph, the pools, the limits. Plain numbers."""

from __future__ import annotations

from msgspec import Struct

from penstock.core.counts import Counts

DEAD_ROW_BYTES = 1 << 18  # that the record of a dead row takes at most, until it is committed


class StepShape(Struct, frozen=True):
    """A step of the phase, by index in topological order.

    after   steps whose results it needs; empty: it takes source rows. More than one: a join
    paid    a replica does it: its results are committed before their rows end, and are not asked for again
    """

    name: str
    after: tuple[int, ...] = ()
    paid: bool = False


class SourceMark(Struct, frozen=True):
    """How much of the source was read, and what it was: the evidence that a later read sees the same rows.

    position   every position below it was read
    file, units   the file that was being read, by index, and how many units of it: bytes of text and
                  of Arrow, row groups of Parquet (after its footer)
    digest     of all files before it, as a whole, and of those units, in hexadecimal
    """

    position: int = 0
    file: int = 0
    units: int = 0
    digest: str = ""


class FlowLimits(Struct, frozen=True):
    """window: unfinished rows in memory. reach: positions that the newest may be ahead of the watermark.
    commit: finished rows wait at most so long or until so many. part: when finished rows are published.
    max_dead: a count (int) or a fraction (float) of source rows.
    source_rows: no position from here on is admitted, except that what ended before may lie beyond; None: no limit."""

    window_rows: int = 8_192
    window_bytes: int = 256 * 1024 * 1024
    reach: int = 1 << 20
    read_rows: int = 2_048
    commit_every_s: float = 10.0
    commit_rows: int = 16_384
    commit_bytes: int = 64 * 1024 * 1024
    commit_patience_s: float = 120.0  # a commit that takes longer: no row is admitted until it is done
    part_rows: int = 16_384
    part_bytes: int = 64 * 1024 * 1024
    max_dead: int | float = 0.05
    dead_judged_from: int = 100  # a fraction is judged from so many ended source rows on
    source_rows: int | None = None


class FlowShape(Struct, frozen=True):
    """The steps of the whole pipeline, of which this phase runs steps[begin:end]; the others do not exist for it.

    carries: the rows that the phase finishes go to a next phase, and are no output yet
    """

    steps: tuple[StepShape, ...]
    limits: FlowLimits
    ordered: bool = True
    begin: int = 0
    end: int | None = None
    carries: bool = False

    @property
    def here(self) -> range:
        """The steps of this phase."""
        return range(self.begin, len(self.steps) if self.end is None else self.end)


class Progress(Struct, frozen=True):
    """Where a run stands when the flow takes it up: what the ledger says.

    counts         totals of the run
    before, rows   of a phase after the first: the totals when it began, and how many source rows it has
    """

    watermark: int = 0
    ended_above: tuple[int, ...] = ()
    counts: Counts = Counts()
    before: Counts = Counts()
    rows: int | None = None
    mark: SourceMark | None = None


class ReplicaShape(Struct, frozen=True):
    """A replica of the plan.

    progress_timeout_s  None lets the dispatcher choose from what it measures
    rungs               steps down that it may take when it runs out of memory while it starts
    phases              those in which it is loaded; empty: all
    peer_group          replicas with equal numbers are expected to have equal throughput; -1: compared with none
    """

    name: str
    pool: int
    progress_timeout_s: float | None = None
    rungs: int = 0
    phases: tuple[int, ...] = ()
    peer_group: int = -1


class DispatchLimits(Struct, frozen=True):
    """Limits of retries and restarts.

    Sources of the figures: the recovery table of docs/reliability.md.
    """

    max_attempts: int = 5  # tries that end in a retryable answer
    suspect_crashes: int = 1  # replica deaths with the request in flight that make it a suspect
    solo_crashes: int = 2  # deaths while it ran alone that make it dead
    restart_backoff_s: float = 0.5
    restart_backoff_max_s: float = 60.0
    circuit_deaths: int = 5  # within circuit_window_s; then the replica is given up
    circuit_window_s: float = 600.0
    circuit_retry_s: float | None = None  # then a replica that was given up is tried again; None: never (a run ends)
    device_deaths: int = 2  # within the same time, where the device itself is said to have failed
    load_timeout_s: float = 1800.0
    silence_timeout_s: float = 60.0  # of a host that loads: it says something every half second, unless it is stopped
    least_silence_s: float = 10.0  # where the model names a shorter progress_timeout_s: loading holds the interpreter
    progress_timeout_s: float = 60.0  # where the model names none; grows with the slowest step seen
    progress_factor: float = 10.0  # times the longest gap between signs of progress seen so far
    max_lookahead: int = 1024
    most_tokens_out: int = 1 << 26  # at one replica, beside the last request: its host holds their texts, 4 bytes each
    memory_cut: float = 0.75  # of slots and tokens after running out of memory at work, once more each time
    least_share: float = 0.1  # and no less of them than this
    same_memory: int = 2  # times out of memory with one and the same room of a replica, or by one request alone
    slow_window_s: float = 120.0  # a replica is measured so long,
    slow_answers: int = 40  # and over so many answers at the least,
    slow_turns: int = 3  # and so many from each place of its own (slots and look-ahead);
    slow_share: float = 0.25  # of the median throughput of its peers: what is below is replaced,
    slow_times: int = 2  # and so often in a row given up
    sleep_timeout_s: float = 60.0  # a replica that takes longer to fall asleep is ended


class DispatchShape(Struct, frozen=True):
    pools: tuple[str, ...]
    replicas: tuple[ReplicaShape, ...]
    limits: DispatchLimits
