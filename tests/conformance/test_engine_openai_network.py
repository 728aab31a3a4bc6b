"""The openai engine on a network that delays, cuts, swallows and repeats: every request gets its own answer."""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp")

from engine_driver import EngineDriver
from openai_service import Service

from penstock.engines.messages import EngineConfig
from penstock.engines.openai import OpenAIEngine
from penstock.engines.openai_retry import Backoff
from penstock.testing.proxy import FaultyProxy

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


@pytest.mark.parametrize(
    "weights",
    [{"delay": 1}, {"pass": 3, "cut": 1}, {"pass": 6, "swallow": 1}, {"pass": 2, "repeat": 1},
     {"pass": 6, "delay": 2, "cut": 1, "swallow": 1, "repeat": 1}],
    ids=["delay", "cut", "swallow", "repeat", "all"],
)  # fmt: skip
@pytest.mark.parametrize("seed", [1, 2])
def test_every_request_gets_its_own_answer(
    weights: dict[str, float], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engines.openai_endpoints.ASIDE_FIRST_S", 0.01)
    with Service(["echo"] * 100 * REQUESTS) as service:
        target = int(service.url.rpartition(":")[2].partition("/")[0])
        with FaultyProxy(target, {"pass": 0.0, **weights}, seed=seed) as proxy:
            options = {"start_patience_s": 0, "timeout_s": 1.0, "concurrency": 8}
            url = f"http://127.0.0.1:{proxy.port}/v1"
            engine = OpenAIEngine()
            with EngineDriver(
                engine, EngineConfig("openai", "small", base_urls=(url,), engine_options=options)
            ) as driven:
                engine._backoff = AT_ONCE
                prompts = [f"question {number}" for number in range(REQUESTS)]
                assert ask(driven, prompts) == [f"answer to {prompt}" for prompt in prompts]
            assert sum(proxy.met.values()) > 0
