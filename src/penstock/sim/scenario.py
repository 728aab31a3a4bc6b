"""A scenario: all that one seed decides before virtual time begins. Small limits, so that each of them is met."""

from __future__ import annotations

from random import Random

from msgspec import Struct
from msgspec.structs import replace

from penstock.core.shape import DispatchLimits, DispatchShape, FlowLimits, FlowShape, ReplicaShape
from penstock.sim.faults import Schedule, draw_schedule
from penstock.sim.pipeline import Hazards, Pipeline, SimStep

__all__ = ["HostShape", "Scenario", "draw_scenario"]


class HostShape(Struct, frozen=True):
    """A simulated replica. token_s: seconds an output token takes. ahead: requests its engine takes beyond slots."""

    slots: int
    kv_tokens: int
    load_s: float
    token_s: float
    ahead: int


class Scenario(Struct, frozen=True):
    """latency_s: of a message, one way. report_s: a host gathers answers so long. read_s, commit_s: of source and sink;
    a read of 0 is answered at once."""

    seed: int
    mode: str
    rows: int
    steps: tuple[SimStep, ...]
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

    def pipeline(self) -> Pipeline:
        return Pipeline(self.seed, self.steps, self.hazards)

    def flow_shape(self, max_dead: int | float) -> FlowShape:
        return FlowShape(self.pipeline().shapes(), replace(self.flow, max_dead=max_dead), self.ordered)

    def dispatch_shape(self) -> DispatchShape:
        replicas = tuple(ReplicaShape(f"replica-{index}", pool) for index, pool in enumerate(self.replica_pools))
        return DispatchShape(tuple(f"pool-{index}" for index in range(self.pools)), replicas, self.dispatch)


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
    pools = 1 + max(step.pool for step in steps)
    replica_pools = tuple(pool for pool in range(pools) for _ in range(rng.choice((1, 2, 2, 3))))
    return Scenario(
        seed=seed,
        mode=mode,
        rows=0 if rng.random() < 0.01 else max(1, int(rows * rng.uniform(0.6, 1.4))),
        steps=steps,
        hazards=_draw_hazards(rng),
        ordered=rng.random() < 0.6,
        flow=_draw_flow_limits(rng),
        dispatch=_draw_dispatch_limits(rng),
        pools=pools,
        replica_pools=replica_pools,
        hosts=_draw_hosts(rng, replica_pools),
        latency_s=rng.choice((0.001, 0.01, 0.05)),
        report_s=rng.choice((0.0, 0.0, 0.02, 0.1)),
        read_s=rng.choice((0.0, 0.01, 0.1)),
        commit_s=rng.choice((0.01, 0.1, 0.5)),
        tick_s=rng.choice((0.1, 0.25)),
        schedule=draw_schedule(rng, mode, len(replica_pools)),
    )


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
        progress_timeout_s=3.0,
        progress_factor=3.0,
        max_lookahead=rng.choice((4, 64)),
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
        )
        for _ in replica_pools
    )
