"""The closing lines of a run: how it ended, what came out, where it is, which rows died and what to do."""

from __future__ import annotations

from pathlib import PurePath

from penstock import units
from penstock.report.facts import DeadExample, RunFacts
from penstock.report.figures import busy_fraction
from penstock.report.fixes import FIXES

_CAUSES_SHOWN = 5
_MESSAGE_CHARACTERS = 160
# A listing of more replicas than this says less than the mean and the lowest.
_REPLICAS_LISTED = 8


def closing(facts: RunFacts, *, again: str | None = None) -> str:
    """The closing text, several lines without a final newline.

    again: the command that continues or repeats the run, where there is one.
    """
    lines = [headline(facts), _rows(facts)]
    lines += _models(facts)
    lines.append(f"  output   {PurePath(facts.out_dir) / 'data'}")
    lines += [f"  warning  {warning}" for warning in facts.warnings]
    lines += _dead(facts)
    lines += _next(facts, again)
    return "\n".join(lines)


def headline(facts: RunFacts) -> str:
    """How the run ended and why: one line, and one more for each further cause."""
    wall = units.duration(facts.wall_s)
    reason = f": {facts.reason}".replace("\n", "\n  ") if facts.reason else ""
    match facts.status:
        case "done" if facts.reused and facts.reused >= facts.rows_in:
            return f"done: all rows were already finished; no model was loaded ({wall})"
        case "done":
            return f"done in {wall}"
        case "stopped" if facts.at_once:
            return f"stopped immediately after {wall}{reason}"
        case "stopped":
            return f"stopped cleanly after {wall}{reason}"
        case "too_many_dead":
            return f"ended after {wall}, more dead rows than max_dead allows{reason}"
        case _:
            return f"failed after {wall}{reason}"


def _rows(facts: RunFacts) -> str:
    parts = [f"{units.count(facts.rows_in)} in", f"{units.count(facts.out)} out", f"{units.count(facts.dead)} dead"]
    if facts.filtered:
        parts.append(f"{units.count(facts.filtered)} filtered")
    if facts.reused:
        parts.append(f"{units.count(facts.reused)} reused")
    if facts.status != "done" and facts.total_rows is not None and facts.total_rows > facts.committed:
        parts.append(f"{units.count(facts.total_rows - facts.committed)} remaining")
    return "  rows     " + ", ".join(parts)


def _models(facts: RunFacts) -> list[str]:
    lines = []
    for pool in facts.pools:
        busy = [(share, r.id) for r in pool.replicas if (share := busy_fraction(r, pool)) is not None]
        if not busy:
            continue
        if len(busy) <= _REPLICAS_LISTED:
            shares = ", ".join(f"{name} {units.share(share)}" for share, name in busy)
        else:
            lowest, name = min(busy)
            mean = sum(share for share, _ in busy) / len(busy)
            shares = f"{units.share(mean)} on average over {len(busy)}, lowest {name} {units.share(lowest)}"
        tokens = f"; {units.count(pool.tokens_out)} tokens written" if pool.tokens_out else ""
        lines.append(f"  busy     {shares}{tokens}")
    return lines


def _dead(facts: RunFacts) -> list[str]:
    if not facts.dead:
        return []
    lines = [f"  dead     {PurePath(facts.out_dir) / 'dead'}: {units.noun(facts.dead, 'row')}"]
    causes = sorted(facts.dead_examples, key=lambda example: (-example.count, example.step, example.code))
    for cause in causes[:_CAUSES_SHOWN]:
        lines += _cause(cause)
    if len(causes) > _CAUSES_SHOWN:
        rest = sum(cause.count for cause in causes[_CAUSES_SHOWN:])
        lines.append(f"    {units.count(rest)} x for {units.noun(len(causes) - _CAUSES_SHOWN, 'other cause')}")
    earlier = facts.dead - sum(cause.count for cause in causes)
    if earlier > 0:  # below 0 where a run has failed before those of this invocation were committed
        lines.append(f"    {units.count(earlier)} of them in earlier invocations: penstock status {facts.out_dir}")
    return lines


def _cause(cause: DeadExample) -> list[str]:
    where = f" in step {cause.step}" if cause.step else ""
    place, message = (units.one_line(text, _MESSAGE_CHARACTERS) for text in (cause.where, cause.message))
    lines = [
        f"    {units.count(cause.count)} x {cause.code}{where}",
        f"      first: {place}: {message}",
    ]
    if cause.code in FIXES:
        lines.append(f"      fix:   {FIXES[cause.code]}")
    return lines


def resume_hint(facts: RunFacts) -> str:
    """What the command that resumes the run needs beside what it had; "" for nothing."""
    return "  (with a higher max_dead: --set max_dead=...)" if facts.status == "too_many_dead" else ""


def _next(facts: RunFacts, again: str | None) -> list[str]:
    if again is None or facts.status == "done":
        return []
    intent = {"stopped": "resume", "too_many_dead": "continue"}.get(facts.status, "retry")
    return [f"  {intent + ':':<9} {again}{resume_hint(facts)}", "            finished rows are kept and not repeated"]
