"""The invariants of Flow, checked against its whole state. Raises InvariantError with the story.

Run after every turn in simulation and tests, and by the driver when it is idle, bounded in time: it costs time in
proportion to what is open.
"""

from __future__ import annotations

from penstock.core.flow.families import at_the_end
from penstock.core.flow.flow import Flow
from penstock.core.flow.positions import Positions


def check_flow(flow: Flow) -> None:
    roots = _check_open(flow)
    _check_families(flow, roots)
    _check_bytes(flow)
    _check_positions(flow, roots)
    _check_limits(flow, roots)


def _check_open(flow: Flow) -> dict[int, int]:
    """Open tasks per unfinished source row."""
    steps = len(flow.shape.steps)
    root_of, by_root = flow.families.root_of, flow.families.by_root
    roots: dict[int, int] = {}
    for task, size in flow.open.items():
        row = task // steps
        root = root_of.get(row, row)
        if size < 0:
            raise flow.broken(f"task {task} holds {size} bytes", task)
        if root in roots and root not in by_root:
            raise flow.broken(f"source row {root} has several open tasks and no family", root)
        roots[root] = roots.get(root, 0) + 1
    return roots


def _check_families(flow: Flow, roots: dict[int, int]) -> None:
    families = flow.families
    for root, family in families.by_root.items():
        if family.open_tasks != roots.get(root, 0) or family.open_tasks <= 0:
            raise flow.broken(f"family {root} counts {family.open_tasks} open tasks of {roots.get(root, 0)}", root)
    children = sum(len(family.children) for family in families.by_root.values())
    if children != len(families.root_of):
        raise flow.broken(f"{len(families.root_of)} rows have a family, families have {children} children")

    steps = len(flow.shape.steps)
    rows = {task // steps for task in flow.open} if families.awaited else set()
    for task in families.awaited:
        row = at_the_end(task) if task < 0 else task // steps  # at_the_end is its own inverse
        if row not in rows:
            raise flow.broken(f"row {row} waits for its other branches, and has no task open in any", row)


def _check_bytes(flow: Flow) -> None:
    held = sum(flow.open.values()) + flow.families.held_bytes()
    if held != flow.open_bytes:
        raise flow.broken(f"{flow.open_bytes} bytes are counted as open, {held} are held")


def _check_positions(flow: Flow, roots: dict[int, int]) -> None:
    """Every admitted position is open, or ended; the watermark passes only what has ended."""
    commits, tally = flow.commits, flow.tally
    positions = commits.positions
    ended = set(commits.ended)
    if len(ended) != len(commits.ended):
        raise flow.broken("a source position waits twice for its commit")
    late = [root for root in commits.partial if root not in roots]
    if late:
        raise flow.broken(f"results of source rows {late} wait for a commit, but the rows are not open", late[0])
    both = [root for root in roots if root in ended or _has_ended(positions, root)]
    if both:
        raise flow.broken(f"source rows {both} have ended and are open", both[0])
    if tally.ended != positions.ended_count + len(ended):
        raise flow.broken(
            f"{tally.ended} source rows are counted as ended; {positions.ended_count} were committed, {len(ended)} wait"
        )
    if tally.read - tally.ended != len(roots):
        raise flow.broken(f"{tally.read - tally.ended} source rows are missing, {len(roots)} are open")


def _has_ended(positions: Positions, position: int) -> bool:
    return position < positions.watermark or bool(positions._flags[position % positions.reach])


def _check_limits(flow: Flow, roots: dict[int, int]) -> None:
    limits = flow.limits
    if len(roots) > limits.window_rows:
        raise flow.broken(f"{len(roots)} source rows are open; the window is {limits.window_rows}")
    if flow.admission.next_position > flow.commits.positions.watermark + limits.reach:
        raise flow.broken(f"position {flow.admission.next_position} was admitted beyond the reach of {limits.reach}")
    if not flow.status and flow.begun.any():
        raise flow.broken("tasks have begun and were not given out")
