"""The openai engine on a network that delays, cuts, swallows and repeats: every request gets its own answer."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import suppress

import pytest

pytest.importorskip("aiohttp")

from engine_driver import EngineDriver
from openai_service import Service

from penstock.engines.openai.engine import OpenAIEngine
from penstock.engines.openai.retry import Backoff
from penstock.protocol.messages import EngineConfig
from penstock.testing.proxy import FaultyProxy, LoopbackServer

REQUESTS = 120
AT_ONCE = Backoff(first_s=0.0, most_s=0.0)


def ask(driven: EngineDriver, prompts: list[str]) -> list[str]:
    """The answers, asking again for what the engine gives back, as the dispatcher would."""
    found: dict[str, str] = {}
    for _ in range(10):
        left = [prompt for prompt in prompts if prompt not in found]
        answers = driven.ask(left) if left else []
        assert {answer.code for answer in answers} <= {"", "retry"}
        found |= {
            prompt: answer.outputs[0].text for prompt, answer in zip(left, answers, strict=True) if not answer.code
        }
    return [found[prompt] for prompt in prompts]


WEIGHTS: dict[str, dict[str, float]] = {
    "delay": {"delay": 1},
    "cut": {"pass": 3, "cut": 1},
    "swallow": {"pass": 10, "swallow": 1},
    "repeat": {"pass": 2, "repeat": 1},
    "ask_twice": {"pass": 2, "ask_twice": 1},
    "stray": {"pass": 2, "stray": 1},
    "all": {"pass": 12, "delay": 4, "cut": 1, "drop": 1, "swallow": 0.5, "repeat": 3, "ask_twice": 1, "stray": 1},
}
IDENTITIES = ("ids", "none", "same", "empty", "mark", "header")


SHIFTING = ("repeat", "ask_twice", "stray", "all")  # the order of the replies on a connection
CASES = [(kind, identity) for kind in WEIGHTS for identity in (IDENTITIES if kind in SHIFTING else ("none", "mark"))]


@pytest.mark.parametrize(("kind", "identity"), CASES)
def test_every_request_gets_its_own_answer(kind: str, identity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own_answers(WEIGHTS[kind], identity, monkeypatch)


@pytest.mark.parametrize("identity", ["mark", "header"])
def test_replies_that_are_swapped_are_told_where_the_service_repeats_the_request_id(
    identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_answers({"pass": 3, "swap": 1}, identity, monkeypatch)


def own_answers(weights: dict[str, float], identity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask through such a proxy. Every request gets the answer to it."""
    monkeypatch.setattr("penstock.engines.openai.endpoints.ASIDE_FIRST_S", 0.01)
    with Service(["echo"] * 100 * REQUESTS, identity=identity) as service:
        target = int(service.url.rpartition(":")[2].partition("/")[0])
        with FaultyProxy(target, weights, seed=1) as proxy:
            options = {"start_patience_s": 0, "timeout_s": 1.0, "concurrency": 8}
            url = f"http://127.0.0.1:{proxy.port}/v1"
            engine = OpenAIEngine()
            with EngineDriver(
                engine, EngineConfig("openai", "small", base_urls=(url,), engine_options=options)
            ) as driven:
                engine._backoff = AT_ONCE
                prompts = [f"question {number}" for number in range(REQUESTS)]
                assert ask(driven, prompts) == [f"answer to {prompt}" for prompt in prompts]
            rarest = 1 / 12  # what is rarer than that need not come among so few replies
            often = [kind for kind, weight in weights.items() if weight / sum(weights.values()) >= rarest]
            assert all(proxy.met[kind] for kind in often)


def test_a_loopback_server_closes_every_connection_it_accepts_as_it_ends() -> None:
    class Holding(LoopbackServer):
        async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

    for number in range(30):  # on the code of before, most of these left a connection open
        with Holding() as server:
            clients = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(1 + number % 8)]
        with suppress(ConnectionResetError):  # accepted or not, each has ended
            assert [client.recv(1) for client in clients] == [b""] * len(clients)
        for client in clients:
            client.close()
    gc.collect()  # a connection that is left open is a ResourceWarning, and that fails the test
