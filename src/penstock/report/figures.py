"""Figures derived from facts: what the contract calls busy and fill, and sums over replicas and pools."""

from __future__ import annotations

from penstock import units
from penstock.report.facts import PoolFacts, ReplicaFacts, RunFacts

# The states in which a run has ended, as they stand in summary.json.
ENDED = frozenset({"done", "stopped", "failed", "too_many_dead"})


def active_s(replica: ReplicaFacts, pool: PoolFacts) -> float | None:
    """Seconds in which this replica could have worked; None when there were none.

    From the later of the pool's first request and the replica's readiness to the pool's last response.
    """
    if pool.first_request_s is None or pool.last_response_s is None or replica.ready_s is None:
        return None
    span_s = pool.last_response_s - max(pool.first_request_s, replica.ready_s)
    return span_s if span_s > 0 else None


def busy_fraction(replica: ReplicaFacts, pool: PoolFacts) -> float | None:
    """Share of its active time in which the replica was executing at least one request."""
    return _share(replica.busy_s, active_s(replica, pool))


def fill_fraction(replica: ReplicaFacts, pool: PoolFacts) -> float | None:
    """Mean share of the replica's request credit that was executing in its active time."""
    return _share(replica.fill_s, active_s(replica, pool))


def _share(part_s: float, whole_s: float | None) -> float | None:
    # The two clocks (host and coordinator) differ by a message's travel, so a full replica may exceed 1 by a hair.
    return None if whole_s is None else min(max(part_s / whole_s, 0.0), 1.0)


def replicas(facts: RunFacts) -> list[ReplicaFacts]:
    return [replica for pool in facts.pools for replica in pool.replicas]


def in_flight(facts: RunFacts) -> int:
    """Requests that are with a replica: executing, or waiting in its host."""
    return sum(replica.in_flight for replica in replicas(facts))


def mean_busy_recent(pool: PoolFacts) -> float | None:
    """Mean busy share of the last interval over the pool's ready replicas; None when none is ready."""
    ready = [replica.busy_recent for replica in pool.replicas if replica.state == "ready"]
    return sum(ready) / len(ready) if ready else None


def idlest(pool: PoolFacts) -> ReplicaFacts | None:
    """The ready replica that worked the least in the last interval."""
    ready = [replica for replica in pool.replicas if replica.state == "ready"]
    return min(ready, key=lambda replica: replica.busy_recent) if ready else None


def why_waiting(replica: ReplicaFacts) -> str:
    """Why a replica is idle, as text, with its state; "" if it is busy."""
    if replica.state == "ready":
        return replica.reason
    return f"{replica.state} ({replica.reason})" if replica.reason not in ("", replica.state) else replica.state


def waiting_reasons(replicas: list[ReplicaFacts]) -> list[tuple[str, list[str]]]:
    """Each reason for which replicas wait, with their ids, in the order of the first replica of each."""
    reasons: dict[str, list[str]] = {}
    for replica in replicas:
        if reason := why_waiting(replica):
            reasons.setdefault(reason, []).append(replica.id)
    return list(reasons.items())


def remaining(facts: RunFacts) -> str:
    """The estimated time left, as text; "" if unknown or below a second."""
    if facts.eta_s is None or facts.eta_s < 1:
        return ""
    return f"about {units.duration(facts.eta_s)} left"


def reused(facts: RunFacts) -> str:
    """How many rows were done before, and how many are left; "" for a run from its beginning."""
    if not facts.reused:
        return ""
    left = None if facts.total_rows is None else max(0, facts.total_rows - facts.committed)
    return f"{units.count(facts.reused)} reused" + ("" if left is None else f", {units.count(left)} remaining")
