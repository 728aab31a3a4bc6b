"""Parts of answers: from the engine through host and link to a listener, past the core, which learns of the first."""

from __future__ import annotations

import threading

import pytest

import penstock as ps
from penstock.protocol.messages import AnswerPart, Request
from penstock.protocol.options import Sampling
from penstock.protocol.wire import decode_parts
from penstock.runtime.pool.calls import Call, Generation, GenerationError

pytestmark = pytest.mark.process

LISTENER = 7


class Listener:
    """Collects what comes for LISTENER of a launched pool."""

    def __init__(self, pool: ps.LaunchedPool) -> None:
        self.parts: list[AnswerPart] = []
        self.begun = threading.Event()
        pool._thread.driver.replicas.listeners[LISTENER] = self._take

    def _take(self, frame: bytes) -> None:
        self.parts += decode_parts(frame)
        self.begun.set()

    def texts(self, task: int, count: int) -> list[str]:
        return ["".join(p.text for p in self.parts if (p.id, p.output) == (task, n)) for n in range(count)]


def begin(pool: ps.LaunchedPool, prompts: list[str], listener: int = LISTENER, tokens: int = 6) -> Call:
    sampling = Sampling(max_tokens=tokens, n=2, temperature=1.0)
    call = Call(pool.name, [Request(prompt, sampling, listener=listener) for prompt in prompts])
    pool._thread.begin(call)
    return call


@pytest.mark.parametrize("cost_ms", [0.0, 5.0])
def test_the_parts_of_an_answer_come_first_and_add_up_to_it(cost_ms: float) -> None:
    model = ps.Model("mock:stream", engine_options={"slots": 4, "ms_per_token": cost_ms})
    with ps.launch(model) as pool:
        assert pool.ready(30)
        listener = Listener(pool)
        streamed = begin(pool, [f"prompt {number}" for number in range(6)])
        silent = begin(pool, ["prompt 0"], listener=0)
        for number, result in enumerate(streamed.wait()):
            assert isinstance(result, Generation)
            assert listener.texts(streamed.first_task + number, 2) == list(result.texts)
        assert {part.id for part in listener.parts} == {streamed.first_task + number for number in range(6)}
        last = [part.finish_reason for part in listener.parts if part.finish_reason]
        assert last == ["length"] * 12
        (same,) = silent.wait()
        assert isinstance(same, Generation)
        assert list(same.texts) == listener.texts(streamed.first_task, 2), "streaming changes no answer"


@pytest.mark.parametrize("listens", [True, False])
def test_what_was_begun_for_a_listener_is_not_run_again_when_its_replica_dies(listens: bool) -> None:
    """Where nobody listens any more, nothing was sent, and the request runs again."""
    model = ps.Model("mock:stream", engine_options={"slots": 4, "ms_per_token": 50, "crash_on": "POISON"})
    with ps.launch(model) as pool:
        assert pool.ready(30)
        listener = Listener(pool)
        watched = begin(pool, ["watched"], tokens=4)
        other = begin(pool, ["other"], listener=LISTENER if listens else 9, tokens=12)
        assert listener.begun.wait(30)
        watched.wait()
        begin(pool, ["POISON"], listener=0)
        (result,) = other.wait()
        if listens:
            assert isinstance(result, GenerationError)
            assert result.code == "replica_lost" and "first part" in str(result)
        else:
            assert isinstance(result, Generation)
