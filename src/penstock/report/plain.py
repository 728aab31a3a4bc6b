"""One plain line per interval: for logs, pipes and terminals that can't redraw."""

from __future__ import annotations

from penstock import units
from penstock.report.facts import PoolFacts, RunFacts
from penstock.report.figures import (
    ENDED,
    idlest,
    in_flight,
    mean_busy_recent,
    remaining,
    replicas,
    reused,
    waiting_reasons,
)

# A log line is read among others: two reasons are informative, twenty are noise.
_REASONS_SHOWN = 2
_REASON_CHARACTERS = 140
# Replicas closer together than this are equally busy as far as a reader cares.
_UNEVEN = 0.05


def line(facts: RunFacts) -> str:
    """The state of the run, most important first, fields parted by " | ". No newline.

    running 1m 24s | 2,448 of 4,000 rows (61.2%) | 812 rows/s | 12,345 tokens/s | writer 2/2 busy 98% | ...
    """
    fields = [f"{facts.status} {units.duration(facts.wall_s)}", progress(facts)]
    if facts.status in ("running", "stopping"):
        fields.append(f"{units.rate(facts.rows_per_s)} rows/s")
        if facts.tokens_per_s > 0:
            fields.append(f"{units.rate(facts.tokens_per_s)} tokens/s")
    fields += [_pool(pool) for pool in facts.pools]
    fields += _counts(facts)
    if facts.status == "running" and (eta := remaining(facts)):
        fields.append(eta)
    return " | ".join(fields + _reasons(facts))


def progress(facts: RunFacts) -> str:
    """Committed rows against all rows, as far as these are known; in one of several phases, the rows of the phase."""
    if facts.phases > 1 and facts.status not in ENDED:
        of = "" if facts.phase_total is None else f" of {units.count(facts.phase_total)}"
        return f"phase {facts.phase} of {facts.phases}: {units.count(facts.phase_ended)}{of} rows"
    done = units.count(facts.committed)
    if facts.total_rows is None:
        return f"{done} of {units.count(facts.rows_in)}+ rows" if facts.rows_in else "0 rows"
    percent = units.percent_done(facts.committed, facts.total_rows)
    return f"{done} of {units.count(facts.total_rows)} rows" + (f" ({percent})" if percent else "")


def _pool(pool: PoolFacts) -> str:
    ready = sum(replica.state == "ready" for replica in pool.replicas)
    text = f"{pool.name} {ready}/{len(pool.replicas)}"
    mean, lowest = mean_busy_recent(pool), idlest(pool)
    if mean is None or lowest is None:
        return text + " ready"
    text += f" busy {units.share(mean)}"
    if mean - lowest.busy_recent > _UNEVEN:
        text += f" (lowest {lowest.id} {units.share(lowest.busy_recent)})"
    return text


def _counts(facts: RunFacts) -> list[str]:
    named = [("in flight", in_flight(facts)), ("dead", facts.dead), ("filtered", facts.filtered)]
    fields = [f"{name} {units.count(value)}" for name, value in named if value or name == "in flight"]
    return [*fields, *filter(None, [reused(facts)])]


def _reasons(facts: RunFacts) -> list[str]:
    reasons = [facts.reason] if facts.reason else []
    reasons += [f"{_first(ids)}: {reason}" for reason, ids in waiting_reasons(replicas(facts))]
    shown = [units.one_line(reason, _REASON_CHARACTERS) for reason in reasons[:_REASONS_SHOWN]]
    if len(reasons) > _REASONS_SHOWN:
        shown.append(f"and {units.noun(len(reasons) - _REASONS_SHOWN, 'more reason')}")
    return shown


def _first(ids: list[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more"
