"""A run on a terminal: facts to a rich renderable. No information is conveyed by color alone.

penstock  out/answers                                            running 1m 24s
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╺━━━━━━━━━━━━━━━  2,448 of 4,000 rows (61.2%)
812 rows/s · 12,345 tokens/s · about 52s left · 3 dead · 512 rows in memory

writer = editor · 120 requests waiting
  replica    busy                   in flight  queued    rows   memory  device
  writer-0   ━━━━━━━━━━━━━━━  98%       16/16       4   1,222   1.2 GB     93%
  writer-1   starting: loading weights, 3 of 7 files
"""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from penstock import units
from penstock.report.facts import PoolFacts, ReplicaFacts, RunFacts
from penstock.report.figures import ENDED, remaining, reused, waiting_reasons
from penstock.report.plain import progress

# Optional columns in their order: heading -> (least terminal width at which it is shown, its own width).
_COLUMNS = {"in flight": (48, 9), "queued": (66, 6), "rows": (57, 9), "memory": (78, 7), "device": (86, 6)}
_BAR_LEAST_TERMINAL = 44
_STATUS_STYLES = {"done": "bold green", "failed": "bold red", "too_many_dead": "bold red", "stopping": "bold yellow"}
_BUSY_STYLE = "cyan"
# Lines that are not replicas: of the view (title, bar, figures, reason, spare), and of each pool (blank, heading,
# column heads, count of the others, reasons).
_VIEW_LINES = 6
_POOL_LINES = 5
_REASONS_SHOWN = 3


def view(facts: RunFacts, *, width: int, height: int = 50) -> RenderableType:
    """The whole view for a terminal of `width` x `height` characters.

    Where the replicas outnumber the lines, those that worked the least are shown and the others are counted.
    """
    parts: list[RenderableType] = [_title(facts, width), _progress(facts, width), *_figures(facts, width)]
    if facts.reason:
        parts.append(Text(units.one_line(facts.reason, width), style="yellow"))
    pools = max(len(facts.pools), 1)
    room = max((height - _VIEW_LINES - _POOL_LINES * pools) // pools, 1)
    id_width = max((len(replica.id) for pool in facts.pools for replica in pool.replicas), default=0)
    for pool in facts.pools:
        parts += [Text(), _pool_heading(pool, width), *_pool(pool, width, room, id_width)]
    parts += [Text(units.one_line(f"warning: {warning}", width), style="yellow") for warning in facts.warnings[-2:]]
    return Group(*parts)


def _title(facts: RunFacts, width: int) -> RenderableType:
    state = f"{facts.status.replace('_', ' ')} {units.duration(facts.wall_s)}"
    grid = Table.grid(Column(ratio=1, no_wrap=True, overflow="ellipsis"), Column(justify="right", no_wrap=True))
    grid.width = width
    left = Text.assemble(("penstock", "bold"), "  ", facts.out_dir)
    grid.add_row(left, Text(state, style=_STATUS_STYLES.get(facts.status, "bold")))
    return grid


def _progress(facts: RunFacts, width: int) -> RenderableType:
    text = progress(facts)
    total, done = facts.total_rows, facts.committed
    if facts.phases > 1 and facts.status not in ENDED:
        total, done = facts.phase_total, facts.phase_ended
    if width < _BAR_LEAST_TERMINAL + 12 or not total:
        return Text(units.one_line(text, width))
    bar = ProgressBar(total=total, completed=done, complete_style=_BUSY_STYLE)
    grid = Table.grid(Column(ratio=1), Column(no_wrap=True), padding=(0, 2, 0, 0), pad_edge=False)
    grid.width = width
    grid.add_row(bar, text)
    return grid


def _figures(facts: RunFacts, width: int) -> list[Text]:
    """The figures of the whole run, broken between two of them and never within one."""
    figures = [Text(f"{units.rate(facts.rows_per_s)} rows/s")]
    if facts.tokens_per_s > 0:
        figures.append(Text(f"{units.rate(facts.tokens_per_s)} tokens/s"))
    if eta := remaining(facts):
        figures.append(Text(eta))
    if facts.dead:
        figures.append(Text(f"{units.count(facts.dead)} dead", style="bold red"))
    if facts.filtered:
        figures.append(Text(f"{units.count(facts.filtered)} filtered"))
    if facts.reused:
        figures.append(Text(reused(facts)))
    figures.append(Text(f"{units.noun(facts.in_memory, 'row')} in memory"))
    lines = [figures[0]]
    for figure in figures[1:]:
        if len(lines[-1]) + 3 + len(figure) <= width:
            lines[-1] = Text(" · ").join([lines[-1], figure])
        else:
            lines.append(figure)
    return lines


def _pool_heading(pool: PoolFacts, width: int) -> Text:
    heading = Text(pool.name, style="bold", no_wrap=True, overflow="ellipsis")
    if len(pool.names) > 1:
        heading.append(f" = {', '.join(pool.names[1:])}", style="not bold")
    heading.append(f" · {units.noun(pool.waiting, 'request')} waiting", style="not bold")
    heading.truncate(width, overflow="ellipsis")
    return heading


def _pool(pool: PoolFacts, width: int, room: int, id_width: int) -> list[RenderableType]:
    ready = [replica for replica in pool.replicas if replica.state == "ready"]
    parts: list[RenderableType] = []
    if ready:
        least = sorted(ready, key=lambda replica: replica.busy_recent)
        shown = {replica.id for replica in least[:room]}
        parts.append(_table([replica for replica in ready if replica.id in shown], width, id_width))
        parts += _others(least[room:])
    for reason, ids in waiting_reasons(pool.replicas)[:_REASONS_SHOWN]:
        parts.append(Text("  " + units.one_line(f"{_few(ids)}: {reason}", width - 2), style="yellow"))
    return parts


def _table(replicas: list[ReplicaFacts], width: int, id_width: int) -> Table:
    optional = {name: own for name, (least, own) in _COLUMNS.items() if width >= least}
    fixed = 2 + max(id_width, 7) + 2 + 4 + sum(2 + own for own in optional.values())
    bar_width = min(width - fixed - 2, 30) if width >= _BAR_LEAST_TERMINAL else 0
    columns = [Column("  replica", width=2 + max(id_width, 7), no_wrap=True)]
    columns += [Column("busy", width=bar_width)] if bar_width >= 5 else []
    columns.append(Column("" if bar_width >= 5 else "busy", width=4, justify="right"))
    columns += [Column(name, width=own, justify="right", no_wrap=True) for name, own in optional.items()]
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for replica in replicas:
        cells: list[RenderableType] = [Text("  " + replica.id)]
        if bar_width >= 5:
            cells.append(ProgressBar(total=1.0, completed=replica.busy_recent, complete_style=_BUSY_STYLE))
        cells.append(units.share(replica.busy_recent))
        table.add_row(*cells, *(_cell(replica, name) for name in optional))
    return table


def _others(replicas: list[ReplicaFacts]) -> list[RenderableType]:
    if not replicas:
        return []
    mean = units.share(sum(replica.busy_recent for replica in replicas) / len(replicas))
    return [Text(f"  and {units.noun(len(replicas), 'replica')} busier than these, {mean} on average", style="dim")]


def _few(ids: list[str]) -> str:
    return ", ".join(ids) if len(ids) <= 3 else f"{ids[0]}, {ids[1]} and {len(ids) - 2} more"


def _cell(replica: ReplicaFacts, column: str) -> str:
    match column:
        case "in flight":
            return f"{replica.executing}/{replica.slots}" if replica.slots else str(replica.executing)
        case "queued":
            return units.count(replica.waiting)
        case "rows":
            return units.count(replica.rows)
        case "memory":
            return units.byte_size(replica.device_bytes) if replica.device_bytes else "-"
        case _:
            return units.share(replica.device_use)
