"""A scenario: all that one seed decides before virtual time begins. Small limits, so that each of them is met."""

from __future__ import annotations

from random import Random

from msgspec import Struct
from msgspec.structs import replace

from penstock.core.shape import DispatchLimits, DispatchShape, FlowLimits, FlowShape, ReplicaShape
from penstock.sim.faults import Fault, Schedule, draw_schedule
from penstock.sim.operators import Operation, draw_operations
from penstock.sim.pipeline import Hazards, SimPipeline, SimStep
from penstock.sim.service import ServiceShape, draw_service
from penstock.sim.source import Change, draw_changes, draw_limits

__all__ = ["HostShape", "Scenario", "SimPhase", "draw_scenario"]


class HostShape(Struct, frozen=True):
    """A simulated replica. token_s: seconds an output token takes. ahead: requests its engine takes beyond slots.

    rungs, memory_rung: steps down that it may take, and the first one on which it does not run out of memory
    phases: those in which it is loaded; empty: all. sleep_s: to fall asleep, and to wake
    peer_group: replicas expected to have equal throughput; -1: none
    """

    slots: int
    kv_tokens: int
    load_s: float
    token_s: float
    ahead: int
    rungs: int = 0
    memory_rung: int = 0
    phases: tuple[int, ...] = ()
    sleep_s: float = 0.1
    peer_group: int = -1


class SimPhase(Struct, frozen=True):
    """A phase: its graph, how many rows come to it, the pools that it opens, which of those are lazy, and which are
    put to sleep at its end where the next does without them.

    Its rows are new ones with positions of their own, as a phase has them: at some positions there are several, and of
    some source rows others have died before. What the phase before made of them is the ledger's part, which has tests
    of its own.
    """

    steps: tuple[SimStep, ...]
    rows: int
    pools: tuple[int, ...]
    lazy: tuple[int, ...] = ()
    sleep: tuple[int, ...] = ()


class Scenario(Struct, frozen=True):
    """latency_s: of a message, one way. report_s: a host gathers answers so long. read_s, commit_s: of source and sink;
    a read of 0 is answered at once. limits: of the lives, one after the other, the last for all that follow. changes:
    of the source's files. twice: the source names one file twice. classes: of the rows, in turn.
    timeout_s: of the requests of every third row; None: none has a deadline."""

    seed: int
    mode: str
    phases: tuple[SimPhase, ...]
    hazards: Hazards
    ordered: bool
    flow: FlowLimits
    dispatch: DispatchLimits
    pools: int
    replica_pools: tuple[int, ...]
    hosts: tuple[HostShape, ...]
    latency_s: float
    report_s: float
    read_s: float
    commit_s: float
    tick_s: float
    schedule: Schedule
    limits: tuple[int | None, ...] = (None,)
    changes: tuple[Change, ...] = ()
    twice: bool = False
    classes: tuple[int, ...] = (100,)
    timeout_s: float | None = None
    operations: tuple[Operation, ...] = ()  # of the operator of the replicas
    streams: bool = False  # some requests send parts of their answers
    service: ServiceShape | None = None  # what the replicas ask, where they are clients of one

    def pipeline(self, phase: int) -> SimPipeline:
        """Steps are numbered through all phases, so that no task of one looks like one of another."""
        steps: list[SimStep] = []
        bounds = [0]
        for each in self.phases:
            steps += [_moved(step, len(steps)) for step in each.steps]
            bounds.append(len(steps))
        return SimPipeline(self.seed, tuple(steps), self.hazards, bounds[phase], bounds[phase + 1], carried=phase > 0)

    def flow_shape(self, pipeline: SimPipeline, max_dead: int | float, limit: int | None = None) -> FlowShape:
        limits = replace(self.flow, max_dead=max_dead, source_rows=limit)
        return FlowShape(pipeline.shapes(), limits, self.ordered, pipeline.begin, pipeline.end, pipeline.carries)

    def dispatch_shape(self) -> DispatchShape:
        replicas = tuple(
            ReplicaShape(f"replica-{index}", pool, rungs=host.rungs, phases=host.phases, peer_group=host.peer_group)
            for index, (pool, host) in enumerate(zip(self.replica_pools, self.hosts, strict=True))
        )
        return DispatchShape(tuple(f"pool-{index}" for index in range(self.pools)), replicas, self.dispatch)


def _moved(step: SimStep, by: int) -> SimStep:
    return replace(step, name=f"{step.name}@{by}" if by else step.name, after=tuple(index + by for index in step.after))


GRAPHS: tuple[tuple[SimStep, ...], ...] = (
    (SimStep("generate"),),
    (SimStep("generate"),),
    (SimStep("draft"), SimStep("filter", "filter", (0,), 1), SimStep("polish", "generate", (1,))),
    (SimStep("topics"), SimStep("expand", "expand", (0,), 1), SimStep("write", "generate", (1,))),
    (SimStep("expand", "expand"), SimStep("filter", "filter", (0,)), SimStep("expand-2", "expand", (1,), 1)),
    (
        SimStep("draft"),
        SimStep("left", "generate", (0,), 1),
        SimStep("right", "filter", (0,)),
        SimStep("joined", "generate", (1, 2)),
    ),
    (SimStep("left"), SimStep("right", "generate", (), 1), SimStep("joined", "generate", (0, 1), 1)),
)


def draw_scenario(seed: int, rows: int = 40, mode: str | None = None) -> Scenario:
    """The scenario of `seed`; without a mode even seeds are liveness, odd ones safety."""
    mode = mode or ("safety" if seed % 2 else "liveness")
    rng = Random(seed)
    steps = rng.choice(GRAPHS)
    phases = Random(f"{seed}/phases")  # a stream of its own
    later = [phases.choice(GRAPHS) for _ in range(phases.choice((0, 0, 0, 1, 2)))]
    steps, *later = _some_without_their_join(seed, [steps, *later])
    pools = 1 + max(step.pool for graph in (steps, *later) for step in graph)
    pools += bool(later) and phases.random() < 0.6
    replica_pools = tuple(pool for pool in range(pools) for _ in range(rng.choice((1, 2, 2, 3))))
    count = 0 if rng.random() < 0.01 else max(1, int(rows * rng.uniform(0.6, 1.4)))
    shapes = _draw_phases(phases, [steps, *later], count, pools)
    limits, changes = draw_limits(seed, count), draw_changes(seed, 8.0)
    drawn = Scenario(
        seed=seed,
        mode=mode,
        phases=shapes,
        hazards=_draw_hazards(rng),
        ordered=rng.random() < 0.6,
        flow=_draw_flow_limits(rng),
        dispatch=_draw_pace_limits(Random(f"{seed}/pace"), _draw_dispatch_limits(rng)),
        pools=pools,
        replica_pools=replica_pools,
        hosts=_in_phases(phases, _draw_hosts(rng, replica_pools), replica_pools, shapes),
        latency_s=rng.choice((0.001, 0.01, 0.05)),
        report_s=rng.choice((0.0, 0.0, 0.02, 0.1)),
        read_s=rng.choice((0.0, 0.01, 0.1)),
        commit_s=rng.choice((0.01, 0.1, 0.5)),
        tick_s=rng.choice((0.1, 0.25)),
        schedule=_cut_short(seed, limits, changes, draw_schedule(rng, mode, len(replica_pools))),
        limits=limits,
        changes=changes,
        twice=Random(f"{seed}/twice").random() < 0.2,
        classes=Random(f"{seed}/classes").choice(((100,), (100,), (100, 0), (100, 100, 100, 0), (50, 0, 100))),
        timeout_s=Random(f"{seed}/timeout").choice((None, None, None, 0.2, 1.0, 4.0)),
        streams=Random(f"{seed}/streams").random() < 0.2,
        service=draw_service(seed),
    )
    drawn = replace(drawn, operations=draw_operations(seed, len(replica_pools), drawn.schedule.until_s))
    if not any(change.resumed for change in changes):
        return drawn
    # What was read before is read again row by row, so that something can happen to it meanwhile.
    return replace(drawn, read_s=0.1, flow=replace(drawn.flow, read_rows=1, window_rows=30))


def _cut_short(seed: int, limits: tuple[int | None, ...], changes: tuple[Change, ...], schedule: Schedule) -> Schedule:
    """Lives whose limits differ, or whose files change between them, are cut short more often than others."""
    rng = Random(f"{seed}/cuts")
    if (len(limits) == 1 and not any(change.resumed for change in changes)) or rng.random() < 0.3:
        return schedule
    cuts = [
        Fault(rng.uniform(0.2, 6.0) * (number + 1), rng.choice(("kill", "stop")), 0, rng.random())
        for number in range(rng.choice((1, 2)))
    ]
    faults = sorted((*schedule.faults, *cuts), key=lambda fault: fault.at_s)
    return replace(schedule, faults=tuple(faults))


def _some_without_their_join(seed: int, graphs: list[tuple[SimStep, ...]]) -> list[tuple[SimStep, ...]]:
    """A phase may end inside of branches: its rows then have several exits to pass."""
    rng = Random(f"{seed}/exits")
    return [graph[:-1] if len(graph[-1].after) > 1 and rng.random() < 0.4 else graph for graph in graphs]


def _draw_phases(rng: Random, graphs: list[tuple[SimStep, ...]], rows: int, pools: int) -> tuple[SimPhase, ...]:
    """The first graph keeps its pools where it is alone; of several each takes some of the pools, in some order."""
    made: list[SimPhase] = []
    for graph in graphs:
        used = 1 + max(step.pool for step in graph)
        places = rng.sample(range(pools), used) if len(graphs) > 1 else list(range(used))
        steps = tuple(replace(step, pool=places[step.pool]) for step in graph)
        share = rows if not made else int(rows * rng.uniform(0.0, 0.7))
        lazy = tuple(pool for pool in places if rng.random() < 0.2)
        sleep = tuple(pool for pool in places if rng.random() < 0.5)
        made.append(SimPhase(steps, share, tuple(sorted(places)), lazy, sleep))
    return tuple(made)


def _in_phases(
    rng: Random, hosts: tuple[HostShape, ...], replica_pools: tuple[int, ...], shapes: tuple[SimPhase, ...]
) -> tuple[HostShape, ...]:
    """Some replicas know only some of the phases, but never the first of a pool; some lack memory at first."""
    made = []
    for index, (host, pool) in enumerate(zip(hosts, replica_pools, strict=True)):
        first = replica_pools.index(pool) == index
        phases = [number for number, phase in enumerate(shapes) if pool in phase.pools]
        if len(shapes) > 1 and not first and phases and rng.random() < 0.4:
            phases = [rng.choice(phases)]
        else:
            phases = []
        rungs = rng.choice((0, 0, 1, 3))
        memory_rung = rng.randint(0, rungs) if rng.random() < 0.3 else 0
        sleep_s = rng.choice((0.05, 0.5))
        made.append(replace(host, rungs=rungs, memory_rung=memory_rung, phases=tuple(phases), sleep_s=sleep_s))
    return tuple(made)


def _draw_hazards(rng: Random) -> Hazards:
    def some(highest: float, chance: float) -> float:
        return rng.uniform(0.0, highest) if rng.random() < chance else 0.0

    return Hazards(
        unreadable=some(0.1, 0.3),
        unrendered=some(0.1, 0.3),
        refused=some(0.1, 0.4),
        poison=some(0.05, 0.25),
        unencodable=some(0.1, 0.2),
        filtered=rng.uniform(0.0, 0.6),
    )


def _draw_flow_limits(rng: Random) -> FlowLimits:
    return FlowLimits(
        window_rows=rng.choice((4, 10, 30, 200)),
        window_bytes=rng.choice((500, 3_000, 1 << 20)),
        reach=rng.choice((16, 64, 512)),
        read_rows=rng.choice((1, 7, 16)),
        commit_every_s=rng.choice((0.2, 1.0, 5.0)),
        commit_rows=rng.choice((5, 20, 1000)),
        commit_bytes=rng.choice((1_000, 1 << 20)),
        commit_patience_s=0.5,
        part_rows=rng.choice((5, 20, 1000)),
        part_bytes=rng.choice((2_000, 1 << 20)),
        max_dead=rng.choice((1.0, 1.0, 1.0, 0.3, 0.1, 0, 3)),
        dead_judged_from=rng.choice((10, 100)),
    )


def _draw_dispatch_limits(rng: Random) -> DispatchLimits:
    return DispatchLimits(
        max_attempts=rng.choice((2, 3, 5)),
        restart_backoff_s=0.2,
        restart_backoff_max_s=2.0,
        circuit_deaths=rng.choice((3, 5, 8)),
        circuit_window_s=rng.choice((5.0, 60.0)),
        load_timeout_s=8.0,
        silence_timeout_s=6.0,
        progress_timeout_s=3.0,
        progress_factor=3.0,
        max_lookahead=rng.choice((4, 64)),
        sleep_timeout_s=2.0,
    )


def _draw_pace_limits(rng: Random, limits: DispatchLimits) -> DispatchLimits:
    """Often so that few answers decide: nothing may break when the wrong replica is replaced."""
    return replace(
        limits,
        slow_window_s=rng.choice((0.5, 2.0, 120.0)),
        slow_answers=rng.choice((2, 5)),
        slow_turns=rng.choice((0, 0, 3)),
        slow_times=rng.choice((2, 5)),
        circuit_retry_s=rng.choice((None, None, 0.5, 4.0)),
    )


def _draw_hosts(rng: Random, replica_pools: tuple[int, ...]) -> tuple[HostShape, ...]:
    slots, kv_tokens = rng.choice((1, 1, 2, 4, 8)), rng.choice((0, 0, 60, 250))
    alike = rng.random() < 0.7
    token_s = rng.choice((0.001, 0.01, 0.03))
    return tuple(
        HostShape(
            slots=slots if alike else rng.choice((1, 2, 4)),
            kv_tokens=kv_tokens if alike else rng.choice((0, 100)),
            load_s=rng.uniform(0.1, 1.5),
            token_s=token_s if alike else token_s * rng.uniform(0.5, 3.0),
            ahead=rng.choice((0, 0, 0, 1)),
            peer_group=0 if alike else -1,
        )
        for _ in replica_pools
    )
