"""The loop of the simulator: `runtime/driver.py` with a heap of virtual times in place of a wait.

A callback on the heap belongs to a life of the coordinator, or (life 0) to the world, which outlives it. It returns the
events that it brings; `Core.turn` takes them as it does in earnest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from heapq import heappop, heappush

from penstock.core.events import Event
from penstock.core.flow.limit import all_admitted
from penstock.sim.coordinator import Coordinator, Killed
from penstock.sim.operators import Operator
from penstock.sim.scenario import Scenario
from penstock.sim.service import Network
from penstock.sim.sink import SimSink
from penstock.sim.source import Change, SimFiles
from penstock.sim.strikes import Strikes
from penstock.sim.tally import Coverage
from penstock.sim.trace import Trace
from penstock.sim.violations import Violation

__all__ = ["World"]

RESTART_S = 0.3  # from the end of one life to the beginning of the next
SAFETY_S = 60.0  # virtual seconds after which a run whose faults never stop is cut
HEAL_S = 400.0  # after the last fault a run has to end within so many virtual seconds
MAX_TURNS = 40_000
MAX_LIVES = 25  # beside those that the schedule ends: of kills and stops alone it may have more than that
MAX_LIMITED = 12  # commands that may have a limit

Callback = Callable[[], Iterable[Event]]


class World:
    def __init__(self, scenario: Scenario, tally: Coverage, trace: Trace | None = None) -> None:
        self.scenario = scenario
        self.tally = tally
        self.trace = trace
        self.now = 0.0
        self.life = 0
        self.turns = 0
        self.status = ""  # how the run ended; "" when it was cut
        self.phase = 0
        self.pipeline = scenario.pipeline(0)
        self.files = SimFiles(scenario.phases[0].rows, twice=scenario.twice)
        self.sink = self._first_sink = SimSink(len(self.files.rows), self.pipeline, tally)
        if self.files.twice:
            tally.hit("source: one file twice")
        self.limit: int | None = None
        self._first_files = self.files
        self.files_restored = False
        self._limited = 0  # lives that ended at their limit
        self._cut_short = sum(fault.kind in ("kill", "stop") for fault in scenario.schedule.faults)
        self._taken_before = 0  # rows of the source that the first phase took in before it stood again
        self._commands = 0  # how many times the command was given
        self.strikes = Strikes(self)
        self.network = Network(scenario.seed, scenario.service)
        self.max_dead = scenario.flow.max_dead
        self._heap: list[tuple[float, int, int, Callback]] = []
        self._sequence = 0
        self._ended_at_failure = -1  # how many source rows had ended when the pool was last down
        self.strikes.arm()
        self.operator = Operator(self)
        for change in scenario.changes:
            if change.at_s is not None and not change.resumed:
                self.at(change.at_s, partial(self._change, change), life=0)
        self.coordinator = self._begin_life()

    def at(self, delay_s: float, callback: Callback, *, life: int | None = None) -> None:
        """Call back in `delay_s`, unless the coordinator's life has ended by then."""
        self._sequence += 1
        heappush(self._heap, (self.now + delay_s, self._sequence, self.life if life is None else life, callback))

    def run(self) -> None:
        until_s = self.scenario.schedule.until_s
        bound_s = SAFETY_S if self.scenario.mode == "safety" else until_s + HEAL_S
        while self._heap and not self.status:
            self.now, _, life, callback = heappop(self._heap)
            if self.now > bound_s or self.turns > MAX_TURNS:
                if self.scenario.mode == "liveness":
                    raise Violation(f"the run has not ended by {bound_s:.0f} s, in {self.turns} turns")
                return
            if life in (0, self.life):
                self._turn(callback)
        if self.status and self.status != "refused":
            self.sink.check_end(self.status, self.max_dead)
            if self.status == "done":
                self._check_contents()

    def _turn(self, callback: Callback) -> None:
        coordinator = self.coordinator
        events = callback()
        if not events:
            return
        self.turns += 1
        try:
            coordinator.turn(events)
        except Killed:
            self.end_life("killed")
            return
        if coordinator.status:
            self._ended(coordinator.status)

    # ------------------------------------------------------------ lives of the coordinator

    def _begin_life(self) -> Coordinator:
        self.life += 1
        if self.life > 2 * (MAX_LIVES * len(self.scenario.phases) + self._limited + self._cut_short):
            raise Violation(f"the run has not ended after {self.life // 2} lives of its coordinator")
        limits = self.scenario.limits
        self.limit = limits[min(self._commands, len(limits) - 1)] if self._commands < MAX_LIMITED else None
        self._commands += 1
        self.sink.begin_life(None if self.phase else self.limit)
        coordinator = Coordinator(self, self.sink.progress())
        self.at(0.0, coordinator.begin)
        return coordinator

    def end_life(self, how: str) -> None:
        """The coordinator ends, and with it what it started. What was being written may have been written or not."""
        self.tally.hit(f"life ended: {how}")
        self.sink.cut_off(self.strikes.chance())
        self.coordinator.alive = False
        self.life += 1  # from here on nothing of that life arrives
        self.at(RESTART_S, self._resume)

    def _change(self, change: Change) -> Iterable[Event]:
        """Something happens to the files of the source."""
        read = 0 if self.sink.mark is None else self.sink.mark.position
        if not self.phase and self.files.change(change, read):
            self.tally.hit(f"source: {change.kind}")
        return ()

    def _resume(self) -> Iterable[Event]:
        if self.life == 2:
            for change in self.scenario.changes:
                if change.at_s is None:
                    self._change(change)
                elif change.resumed:
                    self.at(change.at_s, partial(self._change, change), life=0)
        self.coordinator = self._begin_life()
        return ()

    def _next_phase(self) -> None:
        """What the ledger does between two phases: from here on a resume continues in the next."""
        self.phase += 1
        self.tally.hit("phase begun")
        self.pipeline = self.scenario.pipeline(self.phase)
        # What a life with a limit leaves to the next phase is as little as what it took in.
        taken, rows = self._first_sink.watermark - self._taken_before, self.scenario.phases[self.phase].rows
        self.files = SimFiles(rows * taken // max(1, self._first_sink.rows))
        self.sink = SimSink(len(self.files.rows), self.pipeline, self.tally)
        self.sink.begin_life(None)
        self._ended_at_failure = -1
        self.coordinator.begin_phase()

    def _ended(self, status: str) -> None:
        self.sink.check_life_end(status)
        if status == "done" and self.phase + 1 < len(self.scenario.phases):
            self.sink.check_end(status, self.max_dead)
            self._next_phase()
            return
        self.tally.hit(f"ended: {status}")
        if status == "failed" and self.coordinator.source.refused:
            self._refused()
        elif status == "done" and self._rows_are_left():
            self._first_phase()
            self._limited += 1
            self.end_life("limit")
        elif status == "too_many_dead" and self.strikes.chance() < 0.5:
            self.max_dead = 1.0  # the same command with a higher limit continues
            self.end_life("limit raised")
        elif status == "stopped" or (status == "failed" and self._may_go_on_after_failure()):
            self.end_life(status)
        else:
            self.status = status

    def _refused(self) -> None:
        """The run says that its source has changed. Somebody brings the files back, or gives the run up."""
        if not self.files.touched:
            raise Violation(f"the source was refused as {self.coordinator.source.refused}; it is what it was")
        if self.strikes.chance() < 0.5 and not self.files_restored:
            self.files_restored = True
            self.files.restore()
            self.end_life("source restored")
        else:
            self.status = "refused"

    def _rows_are_left(self) -> bool:
        """Whether the same command without a limit finds something to do, as the shell judges it."""
        sink = self._first_sink
        return not all_admitted(sink.watermark, sink.total_rows, None)

    def _first_phase(self) -> None:
        """After the last phase the first one stands again, behind the rows that were taken in."""
        if self.phase:
            self.phase, self.pipeline = 0, self.scenario.pipeline(0)
            self._taken_before = self._first_sink.watermark
            self.sink, self.files = self._first_sink, self._first_files

    def _check_contents(self) -> None:
        """Each row of the source has ended once, whatever happened to its files."""
        sink, files = self._first_sink, self._first_files
        if len(sink.ended) != len(files.original) or sink.contents != files.wanted():
            missing, more = files.wanted() - sink.contents, sink.contents - files.wanted()
            raise Violation(f"the run is done; rows {sorted(missing)} are missing, {sorted(more)} are there twice")

    def _may_go_on_after_failure(self) -> bool:
        """Whether running the same command again could finish the run. Not if poison rows open every circuit again."""
        ended, self._ended_at_failure = self._ended_at_failure, len(self.sink.ended)
        stuck = self.scenario.hazards.poison > 0 and ended == len(self.sink.ended)
        return self.scenario.mode == "liveness" and not stuck
