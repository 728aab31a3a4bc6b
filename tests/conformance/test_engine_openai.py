"""The openai engine against a service on loopback that misbehaves."""

from __future__ import annotations

import itertools
import json
import socket
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from engine_driver import EngineDriver, texts
from hypothesis import given
from hypothesis import strategies as st
from openai_service import Service, good

from penstock.engines.base import EngineLoadError
from penstock.engines.openai.endpoints import Endpoints, RetryBudget
from penstock.engines.openai.engine import OpenAIEngine
from penstock.engines.openai.failures import CallFailed
from penstock.engines.openai.request import address
from penstock.engines.openai.retry import Backoff, backoff_s, retry_after_s
from penstock.protocol.messages import EngineConfig
from penstock.protocol.options import Sampling
from penstock.protocol.payloads import TokenIds, chat

AT_ONCE = Backoff(first_s=0.0, most_s=0.0)
KEY = "sk-a-very-secret-key"


def driver(*services: Service | str, **options: Any) -> EngineDriver:
    urls = tuple(each if isinstance(each, str) else each.url for each in services)
    engine = OpenAIEngine()
    options.setdefault("start_patience_s", 0)
    loaded = EngineDriver(engine, EngineConfig("openai", "small", base_urls=urls, engine_options=options))
    engine._backoff = AT_ONCE
    return loaded


def closed_url() -> str:
    """A URL where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def test_a_prompt_is_a_user_message_and_usage_is_counted() -> None:
    with Service([(200, good("Paris.", 4))]) as service, driver(service) as engine:
        answer = engine.ask(["Capital of France?"], Sampling(max_tokens=9, temperature=0.0, stop=("x",)))[0]
    assert (answer.code, answer.tokens_in) == ("", 5)
    output = answer.outputs[0]
    assert (output.text, output.finish_reason, output.tokens_out) == ("Paris.", "stop", 4)
    assert service.paths == ["/v1/chat/completions"]
    assert service.bodies == [
        {
            "model": "small",
            "messages": [{"role": "user", "content": "Capital of France?"}],
            "max_tokens": 9,
            "temperature": 0.0,
            "stop": ["x"],
        }
    ]


def test_messages_go_as_they_are_and_completions_take_raw_prompts() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with Service() as service, driver(service) as engine:
        engine.ask([chat(messages)])
    assert service.bodies[0]["messages"] == messages
    body = {"choices": [{"index": 0, "text": " there", "finish_reason": "length"}]}
    with Service([(200, body)]) as service, driver(service, api="completions") as engine:
        answer, refused = engine.ask(["Hello", chat(messages)])
        engine.ask([TokenIds([5, 6])])
    assert (answer.outputs[0].text, answer.outputs[0].finish_reason) == (" there", "length")
    assert refused.code == "refused" and "chat" in refused.message
    assert service.paths == ["/v1/completions"] * 2
    assert [body["prompt"] for body in service.bodies] == ["Hello", [5, 6]]


def test_the_seed_is_sent_where_it_has_an_effect() -> None:
    with Service() as service, driver(service) as engine:
        engine.ask(["a"], Sampling(temperature=0.0), seed=77)
        engine.ask(["a"], Sampling(temperature=1.0), seed=77)
        engine.ask(["a"], Sampling(temperature=1.0, seed=5), seed=77)
        engine.ask(["a"], Sampling(temperature=1.0), seed=None)
    assert [body.get("seed") for body in service.bodies] == [None, 77, 5, None]
    with Service() as service, driver(service, send_seed=False) as engine:
        engine.ask(["a"], Sampling(temperature=1.0), seed=77)
    assert "seed" not in service.bodies[0]


def test_n_outputs_and_logprobs_are_read() -> None:
    content = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]}
    choices = [
        {"index": index, "message": {"content": text}, "finish_reason": "stop", "logprobs": content}
        for index, text in ((1, "second"), (0, "first"))
    ]
    with Service([(200, {"choices": choices})]) as service, driver(service) as engine:
        answer = engine.ask(["a"], Sampling(n=2, logprobs=0))[0]
    assert [output.text for output in answer.outputs] == ["first", "second"]
    assert answer.outputs[0].logprobs == [-0.5, -1.5]
    assert (service.bodies[0]["n"], service.bodies[0]["logprobs"]) == (2, True)


@pytest.mark.parametrize(
    "act",
    [429, 500, 502, 503, (429, None, {"Retry-After": "0"}), "drop", (200, ""), (200, "[]"), (200, {"choices": []}),
     (200, "[" * 100_000 + "]" * 100_000),
     (200, good(finish_reason="abort")), (200, {"choices": [{"index": 0, "finish_reason": "stop"}]})],
    ids=lambda act: str(act)[:40],
)  # fmt: skip
def test_the_services_failure_is_tried_again(act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engines.openai.endpoints.ASIDE_FIRST_S", 0.01)
    with Service([act, act]) as service, driver(service) as engine:
        assert texts(engine.ask(["a"])) == ["fine"]
    assert len(service.bodies) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 501])
def test_what_the_service_refuses_is_not_tried_again(status: int) -> None:
    with Service([(status, {"error": {"message": "no such thing"}})]) as service, driver(service) as engine:
        answer = engine.ask(["a"])[0]
    assert answer.code == "refused"
    assert f"status {status}" in answer.message and "no such thing" in answer.message
    assert len(service.bodies) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "This model's maximum context length is 8192 tokens. However, ...", "code": 400}},
        {"error": {"message": "too much", "code": "context_length_exceeded"}},
        {"object": "error", "message": "The prompt is longer than the maximum model length of 1024."},
    ],
)
def test_a_prompt_over_the_context_is_too_long(body: dict[str, Any]) -> None:
    with Service([(400, body)]) as service, driver(service) as engine:
        assert engine.ask(["a"])[0].code == "too_long"


def test_a_call_that_keeps_breaking_is_given_back() -> None:
    with Service([500] * 9) as service, driver(service, retries=2) as engine:
        answer = engine.ask(["a"])[0]
    assert answer.code == "retry" and "status 500" in answer.message
    assert len(service.bodies) == 3


def test_a_content_filter_is_a_refusal() -> None:
    with Service([(200, good("", finish_reason="content_filter"))]) as service, driver(service) as engine:
        assert engine.ask(["a"])[0].code == "refused"


def test_a_slow_answer_ends_at_its_time_limit() -> None:
    with Service(["hang", "hang"]) as service, driver(service, timeout_s=0.2, retries=1) as engine:
        answer = engine.ask(["a"])[0]
    assert answer.code == "retry" and "timeout_s" in answer.message


def test_neither_key_nor_prompt_is_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    prompt = "a private question"
    told = {"error": {"message": f"bad key {KEY} for {prompt}"}}
    with Service([(401, told)]) as service, driver(service, api_key_env="MY_KEY") as engine:
        answer = engine.ask([prompt])[0]
        seen = json.dumps([answer.message, engine.notes, engine.capacity.facts])
    assert service.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in seen and prompt not in seen
    assert "bad key [key] for [prompt]" in answer.message


@pytest.mark.parametrize(
    "usage",
    ["null", "[]", "7", "{}", '{"prompt_tokens": "5", "completion_tokens": "5"}',
     '{"prompt_tokens": 1e300, "completion_tokens": 1e999}', '{"prompt_tokens": -1000000000000000}',
     '{"completion_tokens": 9223372036854775807}', '{"completion_tokens": 99999999999999999999999999}',
     '{"prompt_tokens": true, "completion_tokens": null}', "[" * 100 + "]" * 100],
)  # fmt: skip
@pytest.mark.parametrize("n", [1, 2])
def test_usage_that_makes_no_sense_is_not_counted_and_the_answer_stands(usage: str, n: int) -> None:
    choice = {"message": {"content": "fine"}, "finish_reason": "stop"}
    choices = json.dumps([{"index": index, **choice} for index in range(n)])
    body = f'{{"choices": {choices}, "usage": {usage}}}'
    with Service([(200, body)]) as service, driver(service) as engine:
        answer = engine.ask(["a"], Sampling(n=n))[0]
    assert answer.code == "" and [output.text for output in answer.outputs] == ["fine"] * n
    assert (answer.tokens_in, [output.tokens_out for output in answer.outputs]) == (0, [0] * n)
    assert len(service.bodies) == 1


def test_log_probabilities_that_nobody_asked_for_are_not_looked_at() -> None:
    with Service([(200, good(logprobs="nonsense"))]) as service, driver(service) as engine:
        assert texts(engine.ask(["a"])) == ["fine"]
    with Service([(200, good(logprobs="nonsense"))] * 2) as service, driver(service, retries=1) as engine:
        assert engine.ask(["a"], Sampling(logprobs=0))[0].code == "retry"


@pytest.mark.parametrize(
    ("base_url", "path", "called"),
    [
        ("http://h/v1", "/models", "http://h/v1/models"),
        ("http://h/v1/", "/models", "http://h/v1/models"),
        ("http://h/v1?api-version=1&k=s", "/models", "http://h/v1/models?api-version=1&k=s"),
        ("http://h/v1/?k=s#f", "/models", "http://h/v1/models?k=s"),
    ],
)
def test_the_query_of_a_url_is_part_of_each_call(base_url: str, path: str, called: str) -> None:
    assert address(base_url, path) == called


def test_a_key_in_the_query_reaches_the_service_and_no_message() -> None:
    with Service([(401, {"error": {"message": f"no such key: {KEY[:7]}***"}}), 500, "drop"]) as service:
        url = service.url
        service.url = f"{url}?api-key={KEY}"
        with driver(service, retries=0) as engine:
            answers = [engine.ask([f"question {number}"])[0] for number in range(3)]
            seen = json.dumps([[answer.message for answer in answers], engine.notes, engine.capacity.facts])
    assert service.paths == ["/v1/chat/completions"] * 3
    assert KEY[:7] not in seen and f"{url}?api-key=***" in seen


def test_requests_are_spread_over_the_endpoints() -> None:
    with Service(["hang"] * 8) as first, Service(["hang"] * 8) as second, driver(first, second) as engine:
        assert engine.capacity.slots == 128
        ids = engine.submit(["a"] * 8)
        spin_until(lambda: first.now + second.now == 8)
        assert (first.now, second.now) == (4, 4)
        first.release.set()
        second.release.set()
        assert texts(engine.wait(ids)) == ["fine"] * 8


def spin_until(condition: Any) -> None:
    import time

    until_s = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.002)


def test_an_endpoint_that_is_away_is_put_aside() -> None:
    with Service() as service, driver(closed_url(), service) as engine:
        assert texts(engine.ask(["a"] * 20)) == ["fine"] * 20
        assert texts(engine.ask(["a"] * 20)) == ["fine"] * 20
    assert len(service.bodies) == 40


def test_a_service_that_comes_back_loses_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engines.openai.endpoints.ASIDE_FIRST_S", 0.01)
    monkeypatch.setattr("penstock.engines.openai.endpoints.ASIDE_MOST_S", 0.02)
    url = closed_url()
    port = int(url.split(":")[2].split("/")[0])
    with driver(url) as engine:
        ids = engine.submit(["a"] * 70)
        spin_until(lambda: engine.engine._endpoints._all[0].failures > 3)  # type: ignore[attr-defined]
        with Service(port=port):
            assert texts(engine.wait(ids)) == ["fine"] * 70


def test_a_service_that_stays_away_gives_its_requests_back_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engines.openai.endpoints.ASIDE_FIRST_S", 0.01)
    with driver(closed_url(), patience_s=0.05) as engine:
        answers = engine.ask(["a"] * 3)
    assert [answer.code for answer in answers] == ["retry"] * 3


def test_nobody_at_any_url_is_told_when_the_engine_loads() -> None:
    url, notes = closed_url(), list[str]()
    config = EngineConfig("openai", "small", base_urls=(url,), engine_options={"start_patience_s": 0.5})
    with pytest.raises(EngineLoadError, match="no service responds") as raised:
        OpenAIEngine().load(config, lambda answers: None, notes.append)
    assert url in str(raised.value) and "start it, or correct base_url" in str(raised.value)
    assert any("retrying for" in note for note in notes)


def test_one_service_of_several_is_enough_to_load() -> None:
    with Service() as service, driver(closed_url(), service, start_patience_s=5) as engine:
        assert texts(engine.ask(["a"])) == ["fine"]


def test_an_aborted_request_is_not_answered() -> None:
    with Service(["hang"]) as service, driver(service) as engine:
        doomed = engine.submit(["a"])
        spin_until(lambda: service.now == 1)
        engine.engine.abort(doomed)
        service.release.set()
        assert texts(engine.ask(["b"])) == ["fine"]
        assert doomed[0] not in {answer.id for answer in engine.answered}


@pytest.mark.parametrize(
    ("urls", "options", "words"),
    [
        ((), {}, "base_url"),
        (("localhost:8000",), {}, "http://"),
        (("http://me:secret@localhost/v1",), {}, "api_key_env"),
        (("http://me:a/secret@localhost/v1",), {}, "not a valid URL"),
        (("http://[localhost/v1?key=secret",), {}, "not a valid URL"),
        (("http://a..b/v1?key=a'secret",), {}, "not a valid URL"),
        (("http://localhost/v1",), {"api_key_env": "sk-secret"}, "the variable's name"),
        (("http://localhost/v1",), {"headers_env": {"X-Api-Key": "sk-secret"}}, "the variable's name"),
        (("http://localhost/v1",), {"api_key": "sk-secret"}, "no option 'api_key'"),
        (("http://localhost/v1",), {"api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
        (("http://localhost/v1",), {"concurency": 3}, "'concurrency'"),
        (("http://localhost/v1",), {"api": "responses"}, "completions"),
        (("http://localhost/v1",), {"extra_body": {"stream": True}}, "stream"),
    ],
)
def test_what_can_not_be_meant_is_said(urls: tuple[str, ...], options: dict[str, Any], words: str) -> None:
    config = EngineConfig("openai", "small", base_urls=urls, engine_options=options)
    with pytest.raises(EngineLoadError, match=words) as raised:
        OpenAIEngine().load(config, lambda answers: None, lambda note: None)
    assert "secret" not in str(raised.value)


@given(attempt=st.integers(0, 20), asked=st.none() | st.floats(0, 1000), chance=st.floats(0, 0.999))
def test_a_pause_is_bounded_and_as_long_as_asked(attempt: int, asked: float | None, chance: float) -> None:
    backoff = Backoff()
    pause = backoff_s(attempt, asked, backoff, chance)
    assert 0 < pause <= max(backoff.most_s, backoff.obeyed_s * 1.1)
    if asked is not None:
        assert pause >= min(asked, backoff.obeyed_s)


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_s({"Retry-After": "7"}) == 7.0
    assert retry_after_s({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, now_s=1445412475.0) == 5.0
    assert retry_after_s({"Retry-After": "soon"}) is None
    assert retry_after_s({}) is None


def test_a_busy_endpoint_gets_less_and_grows_again() -> None:
    endpoints = Endpoints(["http://a"], concurrency=8)
    endpoint = endpoints.pick(0.0)
    assert endpoint is not None
    for _ in range(5):  # refused together: one cut
        endpoints.failed(endpoint, 0.0, CallFailed("", "busy"))
    assert endpoint.limit == 4
    taken = list(itertools.takewhile(lambda found: found is not None, (endpoints.pick(0.0) for _ in range(20))))
    assert len(taken) == 3
    for _ in range(60):
        endpoints.answered(endpoint)
    assert endpoint.limit == 8


def test_an_absent_endpoint_is_probed_one_at_a_time() -> None:
    endpoints = Endpoints(["http://a", "http://b"], concurrency=8)
    absent = endpoints.pick(0.0)
    assert absent is not None
    endpoints.failed(absent, 0.0, CallFailed("", "away"))
    endpoints.done(absent)
    while (other := endpoints.pick(0.0)) is not None:
        assert other is not absent
    wait_s = endpoints.next_s(0.0)
    assert wait_s is not None and wait_s > 0
    assert endpoints.pick(wait_s) is absent
    assert endpoints.pick(wait_s) is None
    endpoints.answered(absent)
    assert endpoints.pick(wait_s) is absent


def test_the_retry_budget_runs_out_and_refills() -> None:
    budget = RetryBudget()
    assert sum(budget.allows_retry() for _ in range(100)) == RetryBudget.MOST
    for _ in range(8):
        budget.first_try()
    assert [budget.allows_retry() for _ in range(3)] == [True, True, False]
