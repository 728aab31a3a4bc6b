"""`penstock status`: the state of a run, from the files in its folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from penstock.cli import output
from penstock.cli.options import AsJson
from penstock.errors import InputError
from penstock.ledger.owner import clock_ahead_s
from penstock.report.redact import message_without_row
from penstock.units import count, duration, noun, one_line, percent_done

MOST_OF_A_MESSAGE = 100
_READINGS = 5  # of a folder whose files come and go

if TYPE_CHECKING:
    from penstock.ledger.view import RunView


class Status(msgspec.Struct):
    """A run as its folder tells it. Counts as in summary.json; `last_commit_s`: seconds since the newest commit.

    status   running | retrying | done | stopped | failed | too_many_dead | interrupted (it was killed; the command
             resumes it)
    owner    "HOST, process N" of the coordinator at work, or None
    causes   "step code" -> dead rows; examples: the message of one of them
    replicas what each does or waits for, while the run is at work
    retry    how far dead rows have been run again, where that was begun and has not ended
    """

    status: str
    directory: str
    total_rows: int | None
    rows: dict[str, int]
    last_commit_s: float
    owner: str | None
    causes: dict[str, int]
    examples: dict[str, str]
    replicas: list[dict[str, Any]]
    summary: dict[str, Any] | None
    retry: dict[str, int | None] | None = None


def status(
    directory: Annotated[str, Parameter(help="The output folder of a run.")],
    /,
    *,
    json_: AsJson = False,
) -> int:
    """Show the state of a run. Reads only files, and does not affect an active run."""
    from penstock.ledger.view import read_run

    folder = Path(directory)
    if not folder.is_dir():
        raise InputError("no such folder; pass the output folder of a run", where=directory)
    found = collect(read_run(folder), folder)
    if json_:
        output.json_data(msgspec.to_builtins(found))
    else:
        output.data(describe(found))
    return 0


def collect(view: RunView, folder: Path) -> Status:
    """Put together the manifest's figures, the owner, the dead rows' causes and the last summary.json."""
    from penstock.ledger.view import read_retry
    from penstock.runtime.watch.live import read_live

    summary = _summary(folder, since=view.committed)
    counts = view.counts
    causes, examples = _causes(folder / "dead") if counts.dead else ({}, {})
    again = read_retry(view)
    live = None
    if view.owner_alive:
        live = read_live(folder)
    elif again is not None and again.owner_alive:
        live = read_live(Path(again.out_dir))
    rows = {"in": counts.rows_in, "ended": counts.ended_sources, "out": counts.out, "dead": counts.dead}
    return Status(
        status="retrying" if again is not None and again.owner_alive else _state(view, summary),
        directory=str(folder).encode("utf-8", "backslashreplace").decode("utf-8"),
        total_rows=view.total_rows,
        rows=rows | {"filtered": counts.filtered},
        last_commit_s=max(time.time() - view.committed, 0.0),
        owner=_owner(view),
        causes=causes,
        examples=examples,
        replicas=[msgspec.to_builtins(each) for pool in live.pools for each in pool.replicas] if live else [],
        summary=summary,
        retry=None if again is None else {"rows": again.total_rows, "ended": again.counts.ended_sources},
    )


def _owner(view: RunView) -> str | None:
    if view.owner is None or not view.owner_alive:
        return None
    ahead = clock_ahead_s(view.owner, time.time())
    differs = "" if ahead is None else f", whose clock is {duration(ahead)} ahead, so it is unknown whether it is alive"
    return f"{view.owner.host}, process {view.owner.pid}{differs}"


def _state(view: RunView, summary: dict[str, Any] | None) -> str:
    if view.finished:
        return "done"
    if view.owner_alive:
        return "running"
    return str(summary["status"]) if summary else "interrupted"


def _summary(folder: Path, *, since: float) -> dict[str, Any] | None:
    """summary.json of the last invocation; None where there is none or a later invocation was killed."""
    path = folder / "summary.json"
    try:
        # File systems round times: a summary is written after the last commit, at once.
        if path.stat().st_mtime < since - 2.0:
            return None
        summary = json.loads(path.read_bytes())
        return summary if isinstance(summary, dict) and "status" in summary else None
    except (OSError, ValueError):
        return None


def _causes(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Dead rows by step and code, most first; and the message of the first of each."""
    for _ in range(_READINGS):
        try:
            return _read_causes(folder)
        except FileNotFoundError:  # small parts were joined, or rows run again, while we were reading
            continue
    return {}, {}


def _read_causes(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    causes: dict[str, int] = {}
    examples: dict[str, str] = {}
    for part in sorted(folder.glob("part-*.parquet")):
        with part.open("rb") as file:  # a path of Arrow has to be UTF-8
            table = parquet.read_table(file, columns=["step", "code"])
            table = table.append_column("place", pa.array(range(len(table)), pa.int64()))
            for group in table.group_by(["step", "code"]).aggregate([([], "count_all"), ("place", "min")]).to_pylist():
                name = f"{group['step']} {group['code']}".strip()
                causes[name] = causes.get(name, 0) + group["count_all"]
                if name not in examples:
                    examples[name] = _example(parquet.ParquetFile(file), group["place_min"])
    return dict(sorted(causes.items(), key=lambda item: (-item[1], item[0]))), examples


def _example(part: Any, place: int) -> str:
    """The message of one dead row, without what it repeats of the row."""
    for number in range(part.num_row_groups):
        if place < (rows := part.metadata.row_group(number).num_rows):
            found = part.read_row_group(number, columns=["message", "input"]).slice(place, 1).to_pylist()[0]
            return message_without_row(found["message"], found["input"])
        place -= rows
    raise AssertionError("the part is shorter than its own table")


def _short(message: str) -> str:
    return one_line(message, MOST_OF_A_MESSAGE)


def _replica(replica: dict[str, Any]) -> str:
    doing = f"{count(replica['in_flight'])} in flight" if replica["in_flight"] else replica["reason"]
    restarts = f", {noun(replica['restarts'], 'restart')}" if replica["restarts"] else ""
    detail = f": {doing}" if doing and doing != replica["state"] else ""
    return f"{replica['id']} {replica['state']}{detail}; {count(replica['rows'])} answered{restarts}"


def describe(status: Status) -> str:
    """The status in words, several lines."""
    rows = status.rows
    total = "" if status.total_rows is None else f" of {count(status.total_rows)}"
    percent = percent_done(rows["ended"], status.total_rows)
    facts = [
        ("status", status.status.replace("_", " ")),
        ("rows", f"{count(rows['ended'])}{total} ended" + (f" ({percent})" if percent else "")),
        ("", ", ".join(f"{count(rows[name])} {name}" for name in ("out", "dead", "filtered"))),
        ("commit", f"{duration(status.last_commit_s)} ago"),
    ]
    if status.retry is not None:
        on = "" if status.status == "retrying" else "; run `penstock retry` to continue"
        facts.append(("retry", f"{noun(status.retry['ended'] or 0, 'source row')} with dead rows retried{on}"))
    if status.owner:
        facts.append(("owner", status.owner))
    for place, (name, n) in enumerate(status.causes.items()):
        facts.append(("dead" if not place else "", f"{count(n)} x {name}: {_short(status.examples.get(name, ''))}"))
    for place, replica in enumerate(status.replicas):
        facts.append(("replicas" if not place else "", _replica(replica)))
    for name, pool in (status.summary or {}).get("models", {}).items():
        busy = [replica["busy_fraction"] for replica in pool["replicas"] if replica["busy_fraction"] is not None]
        if busy:
            facts.append(
                (
                    "busy",
                    f"{name}: {100 * sum(busy) / len(busy):.1f}% over {noun(len(busy), 'replica')}, last invocation",
                )
            )
    if status.status in ("stopped", "failed", "interrupted"):
        facts.append(("next", "run the same `penstock run` command to continue"))
    if status.status == "too_many_dead":
        facts.append(("next", "run the same `penstock run` command with a higher `--set max_dead=...` to continue"))
    return f"{status.directory}\n{output.table(facts)}"
