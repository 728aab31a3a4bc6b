"""Requests that wait: what is kept of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from penstock.core import events as ev
from penstock.data.lists import ListSource
from penstock.protocol.payloads import texts_in
from penstock.runtime.replicas.record import Record
from penstock.runtime.rows.store import RowStore
from penstock.runtime.rows.tasks import Tasks
from penstock.spec.steps import Generate
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
