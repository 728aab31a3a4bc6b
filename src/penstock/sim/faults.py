"""What goes wrong in a scenario, drawn from its seed before it begins.

Some faults strike at a time (`Fault`), others with a certain chance whenever there is an occasion (`Rates`). In safety
mode they never stop; in liveness mode nothing strikes any more from `until_s` on, and the run has to end.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct
from msgspec.structs import replace

__all__ = ["KINDS", "NO_RATES", "Fault", "Rates", "Schedule", "draw_schedule"]

# What can strike at a time -> how often it is drawn, relative to the others.
KINDS: dict[str, int] = {
    "slow": 3,  # a replica takes many times as long for a while
    "crash": 4,  # its processes die
    "oom": 1,  # they die of memory
    "hang": 2,  # no progress any more; heartbeats continue
    "hang_silent": 1,  # neither
    "stall": 2,  # no progress for a while; then it continues, if it was not killed for that
    "cut": 2,  # the connection is lost; the replica works on, and what it still says comes late
    "forge_attempt": 2,  # an answer of another attempt
    "forge_incarnation": 2,  # an answer of an earlier incarnation
    "forge_replica": 1,  # an answer to what another replica was asked
    "slow_commits": 2,
    "late_ticks": 1,
    "kill": 2,  # the coordinator, with everything that it started
    "stop": 1,  # a clean shutdown
}


class Rates(Struct, frozen=True):
    """Chances: of a message from a host (late, twice, lost, out of order), of a request, of a load."""

    late: float = 0.0
    twice: float = 0.0
    lost: float = 0.0
    reordered: float = 0.0
    retry: float = 0.0
    answers_aborted: float = 0.0
    load_crash: float = 0.0
    load_failed: float = 0.0
    load_hang: float = 0.0


NO_RATES = Rates()


class Fault(Struct, frozen=True):
    at_s: float
    kind: str
    replica: int
    amount: float  # in [0, 1): how long, how much, which


class Schedule(Struct, frozen=True):
    rates: Rates
    faults: tuple[Fault, ...]
    until_s: float

    def rates_at(self, now: float) -> Rates:
        return self.rates if now < self.until_s else NO_RATES


def draw_schedule(rng: Random, mode: str, replicas: int) -> Schedule:
    """A tenth of the scenarios is undisturbed, the rest suffers lightly or heavily, often of one kind alone."""
    until_s = rng.uniform(2.0, 15.0) if mode == "liveness" else float("inf")
    horizon_s = min(until_s, 40.0)
    weight = rng.choices((0.0, 1.0, 4.0), (1, 5, 4))[0]
    kinds = list(KINDS) if rng.random() < 0.6 else [rng.choice(list(KINDS))]
    count = int(weight * rng.uniform(0.5, 2.0) * horizon_s / 10.0 + rng.random())
    faults = [
        Fault(
            rng.uniform(0.0, horizon_s),
            rng.choices(kinds, [KINDS[kind] for kind in kinds])[0],
            rng.randrange(replicas),
            rng.random(),
        )
        for _ in range(count if weight else 0)
    ]
    return Schedule(_draw_rates(rng, weight), tuple(sorted(faults, key=lambda fault: fault.at_s)), until_s)


def _draw_rates(rng: Random, weight: float) -> Rates:
    highest = {
        "late": 0.02,
        "twice": 0.03,
        "lost": 0.004,
        "reordered": 0.03,
        "retry": 0.04,
        "answers_aborted": 0.3,
        "load_crash": 0.06,
        "load_failed": 0.01,
        "load_hang": 0.02,
    }
    rates = NO_RATES
    for name, chance in highest.items():
        if rng.random() < 0.5:
            rates = replace(rates, **{name: weight * chance * rng.random()})
    return rates
