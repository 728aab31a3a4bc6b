"""One seed, replayed."""

from __future__ import annotations

from msgspec import Struct

from penstock.errors import InvariantError
from penstock.sim.scenario import draw_scenario
from penstock.sim.tally import Coverage
from penstock.sim.trace import Trace
from penstock.sim.violations import Violation
from penstock.sim.world import World

__all__ = ["Outcome", "SeedFailed", "run_seed"]


class SeedFailed(Exception):
    """A seed broke a promise. The message says which, and the command that replays it."""


class Outcome(Struct):
    """status "": the run was cut. now: virtual seconds that it took."""

    status: str
    turns: int
    now: float


def run_seed(
    seed: int, rows: int = 40, mode: str | None = None, tally: Coverage | None = None, trace: Trace | None = None
) -> Outcome:
    """Run the scenario of `seed`. Raises SeedFailed."""
    scenario = draw_scenario(seed, rows, mode)
    command = f"python -m penstock.sim --seed {seed} --rows {rows} --mode {scenario.mode} --trace"
    world = None
    try:
        world = World(scenario, tally or Coverage(), trace)
        world.run()
    except (Violation, InvariantError) as broken:
        when = "" if world is None else f" at {world.now:.4f} s"
        raise SeedFailed(f"seed {seed}{when}: {broken}\nReplay: {command}") from broken
    return Outcome(world.status, world.turns, world.now)
