"""Requests that wait: what is kept of them. Rows in branches: each ends once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

import penstock as ps
from penstock.core import events as ev
from penstock.data.lists import ListSource
from penstock.protocol.payloads import texts_in
from penstock.runtime.replicas.record import Record
from penstock.runtime.rows.store import RowStore
from penstock.runtime.rows.tasks import Tasks
from penstock.runtime.rows.views import views_of
from penstock.spec.steps import SOURCE, Filter, Generate, Join, Step
from penstock.steps.registry import logic_for

LONG = "word " * 4000


@pytest.mark.parametrize(
    "given",
    [{"prompt": "{{ q }}!"}, {"messages": [{"role": "user", "content": "{{ q }}!"}]}],
    ids=["prompt", "messages"],
)
def test_a_long_prompt_is_rendered_when_it_is_sent(given: dict[str, Any]) -> None:
    """A few words of a row may become megabytes of prompt; a window full of them is not kept."""
    rows = [{"q": "short"}, {"q": LONG}]
    store = RowStore(ListSource(rows))
    store.rows.update(enumerate(rows))
    nodes = [cast(Any, SimpleNamespace(name="generate", after=()))]
    logic = logic_for(Generate.model_validate({"model": "m", "output": "a", **given}))
    tasks = Tasks(nodes, [logic], {0: 0}, store, cast(Record, None), 1)
    (submit,) = tasks.start(ev.StartTasks(step=0, tasks=[0, 1], orders=[0, 1]))
    assert isinstance(submit, ev.Submit) and submit.tokens_in[1] > len(LONG) // 4
    kept = [asked.payload for asked in tasks._asked.values()]
    assert kept[0] is not None and kept[1] is None
    for attempt in (1, 2):
        items = tasks.requests(ev.Send(replica=0, incarnation=1, tasks=[0, 1], attempts=[attempt, attempt]))
        texts = [texts_in(item.payload)[0] for item in items]
        assert texts == ["short!", LONG + "!"]


@pytest.mark.parametrize("first", ["filter", "generate"])
def test_a_row_that_two_branches_end_in_one_turn_ends_once(first: str) -> None:
    """Both tasks are begun before the core knows of either end. It takes the first, and so does the store."""
    writer = Generate.model_validate({"from": SOURCE, "model": "m", "prompt": "{{ q }}", "output": "a"})
    keeper = Filter.model_validate({"from": SOURCE, "expr": "id > 5"})
    join = Join.model_validate({"from": "filter", "with": "generate"})
    steps: list[Step] = [keeper, writer, join] if first == "filter" else [writer, keeper, join]
    models = {"m": ps.Model("mock:m")}
    pipeline = ps.Pipeline(source=ps.Source(path="in"), steps=steps, sink=ps.Sink(path="out"), models=models)
    nodes = pipeline.order()
    row: dict[str, Any] = {"id": 1, "q": None}  # one branch filters it, the other can't render its prompt
    store = RowStore(ListSource([row]), views_of(nodes, 0, 3))
    store.rows[0] = row
    told: list[str] = []
    record = cast(Record, SimpleNamespace(on_dead_row=lambda dead: told.append(dead.code)))
    tasks = Tasks(nodes, [logic_for(node.step) for node in nodes], {0: 0, 1: 0}, store, record, 1)
    ends = [tasks.start(ev.StartTasks(step=step, tasks=[step], orders=[0])) for step in (0, 1)]
    assert [type(event) for event in ends[0]] == [ev.TasksFiltered if first == "filter" else ev.TasksDead]
    assert ends[1] == [], "the row has ended"
    assert told == ([] if first == "filter" else ["template_missing_field"])
    store.drop([0])
    assert not store._ending and bool(store._dead) is (first == "generate")


@pytest.mark.parametrize(
    ("of_run", "sampling", "seeded"),
    [(None, {}, False), (3, {}, True), (3, {"temperature": 0.0}, False), (3, {"seed": 5}, False)],
)
def test_only_a_run_with_a_seed_gives_requests_one(of_run: int | None, sampling: dict[str, Any], seeded: bool) -> None:
    rows = [{"q": "a"}, {"q": "b"}]
    store = RowStore(ListSource(rows))
    store.rows.update(enumerate(rows))
    nodes = [cast(Any, SimpleNamespace(name="generate", after=()))]
    logic = logic_for(Generate.model_validate({"model": "m", "prompt": "{{ q }}", "output": "a", **sampling}))
    tasks = Tasks(nodes, [logic], {0: 0}, store, cast(Record, None), of_run)
    tasks.start(ev.StartTasks(step=0, tasks=[0, 1], orders=[0, 1]))
    seeds = [item.seed for item in tasks.requests(ev.Send(replica=0, incarnation=1, tasks=[0, 1], attempts=[1, 1]))]
    assert len(set(seeds)) == 2 and None not in seeds if seeded else seeds == [None, None]
