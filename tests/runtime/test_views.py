"""What each branch sees of a row, for graphs and orders drawn at random."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Any

import pytest

import penstock as ps
from penstock.data.base import Row
from penstock.runtime.rows.views import BranchViews, views_of
from penstock.spec.graph import StepNode
from penstock.spec.steps import SOURCE, Join, Map, Step

BASE: Row = {"question": "why", "number": 3}


def chain_of(*steps: Step) -> tuple[StepNode, ...]:
    return ps.Pipeline(source=ps.Source(path="in.jsonl"), steps=steps, sink=ps.Sink(path="out")).order()


def draw_graph(rng: Random) -> tuple[StepNode, ...]:
    """Maps and joins; each map adds one or two columns, some rewrite what their own branch has made."""
    steps: list[Step] = []
    tips: list[tuple[str, tuple[str, ...]]] = [(SOURCE, ())]  # of each branch: its last step, columns that it owns

    def add(at: int) -> None:
        before, own = tips[at]
        name = f"s{len(steps)}"
        columns = tuple(f"{name}_{number}" for number in range(rng.choice((1, 1, 2))))
        columns += (rng.choice(own),) if own and rng.random() < 0.3 else ()
        steps.append(Map.model_validate({"name": name, "from": before, "function": "m:f", "columns": columns}))
        tips[at] = (name, (*own, *columns))

    def join(left: int, right: int) -> None:
        name = f"j{len(steps)}"
        steps.append(Join.model_validate({"name": name, "from": tips[left][0], "with": tips[right][0]}))
        tips[left] = (name, ())
        del tips[right]

    add(0)
    tips.append((tips[0][0] if rng.random() < 0.5 else SOURCE, ()))
    tips[0] = (tips[0][0], ())
    add(0)
    add(1)
    for _ in range(rng.randint(3, 9)):
        act = rng.random()
        if act < 0.3:
            fork = rng.randrange(len(tips))
            tips[fork] = (tips[fork][0], ())
            tips.append(tips[fork])
            add(fork)
            add(len(tips) - 1)
        elif act < 0.5 and len(tips) > 1:
            join(*rng.sample(range(len(tips)), 2))
        else:
            add(rng.randrange(len(tips)))
    while len(tips) > 1:
        join(0, 1)
    return chain_of(*steps)


def made(node: StepNode, seen: Row) -> Row:
    """What a map makes of what it sees, so that a column too many or too few shows in all that follows."""
    if isinstance(node.step, Join):
        return seen
    text = repr((node.name, sorted(seen.items())))
    value = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    return {**seen, **{column: f"{column}:{value}" for column in node.step.added_columns() or ()}}


def expected(nodes: tuple[StepNode, ...]) -> list[Row]:
    """Per step, the row as it leaves it: worked out step by step, each input whole."""
    left: list[Row] = []
    owned: list[set[str]] = []  # columns made on the way to the step
    for node in nodes:
        ways = [owned[index] for index in node.after]
        seen: Row = dict(left[node.after[0]]) if node.after else dict(BASE)
        for index in node.after[1:]:
            seen.update({name: left[index][name] for name in left[index] if name not in seen})
        left.append(made(node, seen))
        owned.append(set().union(*ways, node.step.added_columns() or ()))
    return left


def run_phase(nodes: tuple[StepNode, ...], begin: int, end: int, base: Row, rng: Random, right: list[Row]) -> Row:
    """Steps in any order that the graph allows, each twice where it likes (a request that is sent again)."""
    views = views_of(nodes, begin, end)
    assert views is not None
    waiting, done = list(range(begin, end)), set(range(begin))
    while waiting:
        step = rng.choice([index for index in waiting if done.issuperset(nodes[index].after)])
        if rng.random() < 0.3:
            views.before(base, 7, step)
        views.put(7, step, made(nodes[step], views.before(base, 7, step)))
        waiting.remove(step)
        done.add(step)
        assert dict(views._left[7][step]) == right[step], nodes[step].name
    finished = views.finished(base, 7)
    assert not views._left
    return finished


@pytest.mark.parametrize("seed", range(150))
def test_any_order_and_any_phases_give_the_same_columns(seed: int) -> None:
    rng = Random(seed)
    nodes = draw_graph(rng)
    right = expected(nodes)
    for _ in range(6):
        cuts = sorted(rng.sample(range(1, len(nodes)), rng.randint(0, min(2, len(nodes) - 1))))
        row = dict(BASE)
        for begin, end in zip([0, *cuts], [*cuts, len(nodes)], strict=True):
            row = run_phase(nodes, begin, end, row, rng, right)
        assert row == right[-1]


def test_a_branch_sees_no_column_of_another() -> None:
    views, _ = diamond()
    views.put(1, 0, {**BASE, "draft": 1})
    views.put(1, 1, {**views.before(BASE, 1, 1), "left": 2})
    assert views.before(BASE, 1, 2) == {**BASE, "draft": 1}
    views.put(1, 2, {**views.before(BASE, 1, 2), "right": 3})
    assert list(views.before(BASE, 1, 3)) == ["question", "number", "draft", "right", "left"], "from before with"


def test_what_no_step_asks_for_any_more_is_forgotten() -> None:
    views, nodes = diamond()
    for step in range(4):
        views.put(1, step, made(nodes[step], views.before(BASE, 1, step)))
    assert set(views._left[1]) == {0, 3}, "the parting is kept, since two steps take it"
    views.drop(1)
    assert not views._left


def test_a_chain_needs_no_views() -> None:
    assert views_of(chain_of(Map(function="m:f"), Map(function="m:g")), 0, 2) is None


def diamond() -> tuple[BranchViews, tuple[StepNode, ...]]:
    def map_(name: str, before: str) -> Any:
        return Map.model_validate({"name": name, "from": before, "function": "m:f", "columns": [name]})

    join = Join.model_validate({"name": "join", "from": "right", "with": "left"})
    nodes = chain_of(map_("draft", SOURCE), map_("left", "draft"), map_("right", "draft"), join)
    views = views_of(nodes, 0, 4)
    assert views is not None
    return views, nodes
