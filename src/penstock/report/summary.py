"""summary.json: the figures of a run at its end, in the shape that the public contract fixes."""

from __future__ import annotations

from typing import Any

from penstock.report.facts import PoolFacts, ReplicaFacts, RunFacts
from penstock.report.figures import ENDED, busy_fraction, fill_fraction


def summary(facts: RunFacts) -> dict[str, Any]:
    """The content of summary.json. Times in seconds since the process started; null where no request was sent.

    A run that ends before it reached one of the four final states has failed.
    """
    return {
        "status": facts.status if facts.status in ENDED else "failed",
        "rows": {
            "in": facts.rows_in,
            "out": facts.out,
            "dead": facts.dead,
            "filtered": facts.filtered,
            "reused": facts.reused,
        },
        "wall_s": _time(facts.wall_s),
        "first_request_s": _time(facts.first_request_s),
        "last_response_s": _time(facts.last_response_s),
        "models": {pool.name: _pool(pool) for pool in facts.pools if pool.kind == "model"},
        "steps": {step.name: {"in": step.rows_in, "out": step.rows_out, "dead": step.dead} for step in facts.steps},
    }


def _pool(pool: PoolFacts) -> dict[str, Any]:
    return {
        "names": list(pool.names),
        "loads": pool.loads,
        "tokens_in": pool.tokens_in,
        "tokens_out": pool.tokens_out,
        "replicas": [_replica(replica, pool) for replica in pool.replicas],
    }


def _replica(replica: ReplicaFacts, pool: PoolFacts) -> dict[str, Any]:
    return {
        "id": replica.id,
        "devices": list(replica.devices),
        "ready_s": _time(replica.ready_s),
        "rows": replica.rows,
        "busy_s": _time(replica.busy_s),
        "busy_fraction": _fraction(busy_fraction(replica, pool)),
        "fill_fraction": _fraction(fill_fraction(replica, pool)),
        "restarts": replica.restarts,
        "kv_tokens": replica.kv_tokens,
        "kv_tokens_planned": replica.kv_tokens_planned,
    }


def _time(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _fraction(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
