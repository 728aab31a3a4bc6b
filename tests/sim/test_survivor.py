"""Two replicas of 8 slots that load for 20 s, at half load; one is killed. The other serves what comes.

Latency in virtual seconds, of requests that come while one is away, beside those of the same time of an undisturbed
run.
"""

from __future__ import annotations

import pytest

from penstock.core import events as ev
from penstock.core.events import Event, Instruction
from penstock.core.shape import DispatchLimits, FlowLimits
from penstock.sim.faults import NO_RATES, Fault, Schedule
from penstock.sim.pipeline import Hazards, Path, SimPipeline, SimStep
from penstock.sim.scenario import HostShape, Scenario, SimPhase
from penstock.sim.tally import Coverage
from penstock.sim.trace import Trace
from penstock.sim.world import World

SLOTS, LOAD_S, TOKEN_S = 8, 20.0, 0.05
KILLED_S = 40.0
ROWS = 2400  # they come for longer than the search for a guilty row takes


MOST_TOKENS = 15  # without the few rows that are far longer: those alone would make others wait
_work = SimPipeline.work


def work(self: SimPipeline, position: int, path: Path, step: int) -> tuple[int, int, int]:
    tokens_in, limit, tokens_out = _work(self, position, path, step)
    return tokens_in, min(limit, MOST_TOKENS + 6), min(tokens_out, MOST_TOKENS)


class Latencies(Trace):
    """task -> when it was begun, and how long it took until its answer was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.began: dict[int, float] = {}
        self.took: dict[int, float] = {}
        self.restarted: set[int] = set()
        self._tasks: list[int] = []

    def event(self, now: float, event: Event) -> None:
        if isinstance(event, ev.AnswersArrived):
            self._tasks = event.tasks

    def instruction(self, now: float, instruction: Instruction) -> None:
        if isinstance(instruction, ev.StartTasks):
            self.began.update(dict.fromkeys(instruction.tasks, now))
        if isinstance(instruction, ev.StartReplica) and instruction.incarnation > 1:
            self.restarted.add(instruction.replica)
        if isinstance(instruction, ev.Deliver):
            for index in instruction.accepted:
                task = self._tasks[index]
                self.took[task] = now - self.began[task]

    def p99(self, begin: float, end: float, share: float = 0.99) -> float:
        took = sorted(self.took[task] for task, at in self.began.items() if begin <= at < end)
        assert len(took) > 100
        return took[int(len(took) * share)]


def scenario(faults: tuple[Fault, ...], *, every_s: float) -> Scenario:
    host = HostShape(slots=SLOTS, kv_tokens=0, load_s=LOAD_S, token_s=TOKEN_S, ahead=0)
    return Scenario(
        seed=5,
        mode="liveness",
        phases=(SimPhase((SimStep("generate"),), ROWS, (0,)),),
        hazards=Hazards(),
        ordered=True,
        flow=FlowLimits(read_rows=1),
        dispatch=DispatchLimits(),
        pools=1,
        replica_pools=(0, 0),
        hosts=(host, host),
        latency_s=0.001,
        report_s=0.0,
        read_s=every_s,
        commit_s=0.01,
        tick_s=0.1,
        schedule=Schedule(NO_RATES, faults, 200.0),
    )


def run(made: Scenario) -> tuple[Latencies, Coverage]:
    trace, tally = Latencies(), Coverage()
    world = World(made, tally, trace)
    world.run()
    assert world.status == "done"
    return trace, tally


@pytest.fixture(autouse=True)
def like_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimPipeline, "work", work)


def every_s(load: float) -> float:
    """Between two requests, for so much of the capacity of all replicas."""
    pipeline = scenario((), every_s=1.0).pipeline(0)
    tokens = [1 + pipeline.work(position, (), 0)[2] for position in range(ROWS)]
    return sum(tokens) / ROWS * TOKEN_S / (2 * SLOTS) / load


HALF = 0.5


def p99_over_calm(hurt: Latencies, until_s: float) -> float:
    calm, _ = run(scenario((), every_s=every_s(HALF)))
    return hurt.p99(KILLED_S, until_s) / calm.p99(KILLED_S, until_s)


def test_the_survivor_serves_while_the_other_loads_and_while_it_tries_the_suspects() -> None:
    hurt, tally = run(scenario((Fault(KILLED_S, "crash", 0, 0.9),), every_s=every_s(HALF)))
    assert p99_over_calm(hurt, KILLED_S + LOAD_S + 5.0) <= 2.0
    assert tally.hits["suspect answered"] > 2
    assert "dead: engine_crash" not in tally.hits


def test_a_poisonous_row_takes_the_capacity_of_one_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    fate, poisonous = SimPipeline.fate, 600
    monkeypatch.setattr(
        SimPipeline,
        "fate",
        lambda self, position, *of: "poison" if position == poisonous else fate(self, position, *of),
    )
    hurt, tally = run(scenario((), every_s=every_s(HALF)))
    died_s = hurt.began[poisonous] + 0.05
    deaths = tally.hits["crash"]
    assert deaths >= 4
    assert tally.hits["dead: engine_crash"] == 1
    calm, _ = run(scenario((), every_s=every_s(HALF)))
    until_s = died_s + deaths * LOAD_S
    assert hurt.p99(died_s, until_s) <= 2.0 * calm.p99(died_s, until_s)
    assert len(hurt.restarted) == 1, "the survivor did not die of it"


def test_with_no_other_to_come_half_of_its_time_is_left() -> None:
    """Its device has failed twice: the survivor has to try what was in flight, and others wait for a group at most."""
    faults = tuple(Fault(at, "crash", 0, 0.1) for at in (KILLED_S, KILLED_S + LOAD_S + 5.0))
    hurt, _ = run(scenario(faults, every_s=every_s(0.4)))
    longest = (1 + MOST_TOKENS) * TOKEN_S
    assert hurt.p99(faults[1].at_s, faults[1].at_s + 15.0) <= 4 * longest
