"""Conformance tests for engines: subclass `EngineConformance`, say how to load the engine, run pytest.

    class TestMock(EngineConformance):
        config = EngineConfig("mock", "mock:conformance", engine_options={"slots": 4, "ms_per_row": 1})

Everything is done through a real host process, as a coordinator would. The tests of one class share one host, since
loading may take minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from penstock.engine_info import engines
from penstock.errors import DEAD_CODES
from penstock.protocol.arrays import Array
from penstock.protocol.messages import (
    Abort,
    Answer,
    AnswerParts,
    Answers,
    EngineConfig,
    Ready,
    Request,
    requests_message,
)
from penstock.protocol.options import PARTS, Classification, Embedding, Options, Sampling, Structured
from penstock.protocol.payloads import ImagePart, Message, Messages, Pair, Payload, RawBody, TextPart
from penstock.protocol.wire import decode_parts
from penstock.testing.harness import HostHarness, LoadingFailed

__all__ = ["EngineConformance"]


class EngineConformance:
    """Class attributes to set:

    config         what the host loads
    bad_config     a config that must fail to load, or None
    python, env    interpreter and variables of the host
    prompts        texts that the engine can answer
    short, long    sampling for answers of a few tokens, and for ones that take as long as they may
    greedy         whether the same prompt has the same answer under `short`
    has_logprobs   whether `logprobs` gives a number for each token
    has_limits     whether the engine itself refuses max_tokens of 0
    patience_s     for loading, and for each wait
    """

    config: ClassVar[EngineConfig]
    bad_config: ClassVar[EngineConfig | None] = None
    python: ClassVar[str | None] = None
    env: ClassVar[Mapping[str, str]] = {}
    prompts: ClassVar[tuple[str, ...]] = ("What is a penstock?", "Name a river.", "Count to ten.")
    short: ClassVar[Sampling] = Sampling(max_tokens=8, temperature=0.0)
    long: ClassVar[Sampling] = Sampling(max_tokens=200, temperature=0.0, ignore_eos=True)
    greedy: ClassVar[bool] = True
    has_logprobs: ClassVar[bool] = True
    has_limits: ClassVar[bool] = True
    patience_s: ClassVar[float] = 300.0

    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostHarness, Ready]]:
        log = tmp_path_factory.mktemp("host") / "log"
        with cls.start(log) as host:
            yield host, host.load(cls.config, patience_s=cls.patience_s)

    @pytest.fixture
    def host(self, loaded: tuple[HostHarness, Ready]) -> HostHarness:
        return loaded[0]

    @classmethod
    def start(cls, log: Path) -> HostHarness:
        return HostHarness(log, python=cls.python, env=cls.env)

    def ask(self, host: HostHarness, payloads: list[Any], sampling: Sampling | None = None) -> list[Answer]:
        return host.ask(payloads, sampling or self.short, patience_s=self.patience_s)

    def many(self, count: int) -> list[Any]:
        return [f"{self.prompts[number % len(self.prompts)]} ({number})" for number in range(count)]

    # ------------------------------------------------------------ tests

    def test_it_tells_what_it_can_hold(self, loaded: tuple[HostHarness, Ready]) -> None:
        capacity = loaded[1].capacity
        assert capacity.slots >= 1
        assert capacity.kv_tokens >= 0
        assert capacity.max_model_len >= 0
        assert loaded[1].load_s > 0

    def test_each_request_is_answered_once(self, host: HostHarness, loaded: tuple[HostHarness, Ready]) -> None:
        count = min(3 * loaded[1].capacity.slots + 5, 60)
        ids = host.request_many(self.many(count), self.short)
        answers = host.answers(count, self.patience_s)
        assert sorted(answer.id for answer in answers) == sorted(ids)
        assert {answer.code for answer in answers} == {""}
        assert {answer.attempt for answer in answers} == {1}
        self._expect_silence(host)
        assert "answers so far to requests that are not executing" not in host.tail()

    def test_an_answer_has_text_reason_and_counts(self, host: HostHarness) -> None:
        for answer in self.ask(host, list(self.prompts)):
            assert answer.code == "", answer.message
            assert answer.tokens_in > 0
            (output,) = answer.outputs
            assert isinstance(output.text, str)
            assert output.finish_reason in ("stop", "length")
            assert 0 < output.tokens_out <= (self.short.max_tokens or 0)

    def test_as_many_outputs_as_asked_for(self, host: HostHarness) -> None:
        sampling = Sampling(max_tokens=6, temperature=1.0, n=3)
        (answer,) = self.ask(host, [self.prompts[0]], sampling)
        assert len(answer.outputs) == 3
        assert len({output.text for output in answer.outputs}) > 1

    def test_messages_are_answered_like_prompts(self, host: HostHarness) -> None:
        messages = Messages([Message("user", self.prompts[0])])
        (answer,) = self.ask(host, [messages])
        assert answer.code == "", answer.message
        assert answer.outputs

    def test_greedy_answers_repeat(self, host: HostHarness) -> None:
        if not self.greedy:
            pytest.skip("this engine does not promise it")
        first = self.ask(host, list(self.prompts))
        second = self.ask(host, list(self.prompts))
        assert [answer.outputs[0].text for answer in first] == [answer.outputs[0].text for answer in second]

    def test_a_number_for_each_token(self, host: HostHarness) -> None:
        if not self.has_logprobs:
            pytest.skip("this engine has no logprobs")
        (answer,) = self.ask(host, [self.prompts[0]], Sampling(max_tokens=5, temperature=0.0, logprobs=1))
        (output,) = answer.outputs
        assert output.logprobs is not None
        assert len(output.logprobs) == output.tokens_out
        assert all(number <= 0 for number in output.logprobs)

    def test_a_bad_request_is_a_row_error_and_harms_no_other(self, host: HostHarness) -> None:
        if not self.has_limits:
            pytest.skip("what is bad is up to the server")
        bad = host.request(self.prompts[0], Sampling(max_tokens=0))
        good = host.request(self.prompts[1], self.short)
        answers = {answer.id: answer for answer in host.answers(2, self.patience_s)}
        assert answers[bad].code in DEAD_CODES
        assert answers[bad].message
        assert answers[good].code == "", answers[good].message

    def test_too_long_a_prompt_is_never_cut(self, host: HostHarness, loaded: tuple[HostHarness, Ready]) -> None:
        limit = loaded[1].capacity.max_model_len
        if not limit:
            pytest.skip("this engine has no limit")
        (answer,) = self.ask(host, ["word " * (limit + 1)])
        assert answer.code == "too_long"
        assert str(limit) in answer.message

    def test_an_aborted_request_is_not_answered(self, host: HostHarness) -> None:
        ids = host.request_many(self.many(3), self.long)
        host.send(Abort([ids[0]]))
        host.take_back([])  # the host has read the Abort when it replies; what it answered before that stands
        early = [answer.id for answer in host.unclaimed]
        answers = host.answers(3 if ids[0] in early else 2, self.patience_s)
        assert {answer.id for answer in answers} == set(early) | set(ids[1:])
        self._expect_silence(host)

    def test_what_it_never_saw_can_be_taken_back(self, host: HostHarness, loaded: tuple[HostHarness, Ready]) -> None:
        ids = host.request_many(self.many(loaded[1].capacity.slots + 20), self.long)
        returned = host.take_back(ids, self.patience_s)
        answers = host.answers(len(ids) - len(returned), self.patience_s)
        assert sorted([*returned, *(answer.id for answer in answers)]) == sorted(ids)
        self._expect_silence(host)

    def test_it_refuses_the_payloads_that_its_record_does_not_name(self, host: HostHarness) -> None:
        info = engines()[self.config.engine]
        others: dict[str, Payload] = {
            "images": Messages([Message("user", [TextPart("What is this?"), ImagePart(data=b"\x89PNG")])]),
            "pair": Pair("a query", ["a text"]),
            "body": RawBody(b"{}", "/v1/chat/completions"),
            "row": {"a": 1},
        }
        asked = {kind: payload for kind, payload in others.items() if kind not in info.payloads}
        for kind, answer in zip(asked, self.ask(host, list(asked.values())), strict=True):
            assert (answer.code, answer.outputs) == ("refused", []), kind
            assert f"not {kind}" in answer.message and info.name in answer.message
        self._expect_silence(host)

    def test_it_refuses_the_options_that_its_record_does_not_name(self, host: HostHarness) -> None:
        info = engines()[self.config.engine]
        structured = replace(self.short, structured=Structured("regex", "a+"))
        others: dict[str, Options] = {
            "embedding": Embedding(),
            "classification": Classification(),
            "structured": structured,
            "labels": replace(self.short, labels=("a", "b")),
        }
        for name, options in others.items():
            if name not in info.honours:
                (answer,) = host.ask([self.prompts[0]], options, patience_s=self.patience_s)
                assert answer.code == "refused" and name in answer.message
        self._expect_silence(host)

    def test_vectors_come_as_arrays(self, host: HostHarness) -> None:
        if "embedding" not in engines()[self.config.engine].honours:
            pytest.skip("this engine does not embed")
        first, second, other = (
            answer.value for answer in host.ask([*self.prompts[:1] * 2, self.prompts[1]], Embedding())
        )
        assert isinstance(first, Array) and first.dtype == "float32" and len(first.shape) == 1
        assert first == second and other.shape == first.shape and other != first

    def test_a_request_of_a_better_class_goes_before_those_that_wait(
        self, host: HostHarness, loaded: tuple[HostHarness, Ready]
    ) -> None:
        waiting = [Request(prompt, self.long, 10**6 + at, 1) for at, prompt in enumerate(self.many(20))]
        urgent = Request(self.prompts[0], self.long, 10**6 - 1, 1, priority=0)
        filling = [Request(prompt, self.long, 2 * 10**6 + at, 1) for at, prompt in enumerate(self._fill(loaded))]
        host.send(requests_message([*filling, *waiting, urgent]))
        answers = host.answers(len(filling) + len(waiting) + 1, self.patience_s)
        assert answers[-1].id != urgent.id
        assert all(answer.code == "" for answer in answers)
        self._expect_silence(host)

    def _fill(self, loaded: tuple[HostHarness, Ready]) -> list[Any]:
        return self.many(min(loaded[1].capacity.slots, 200))

    def test_parts_come_before_the_answer_and_add_up_to_it(self, host: HostHarness) -> None:
        known = len(host.seen)
        id = host.request(self.prompts[0], self.short, listener=3)
        (answer,) = host.answers(1, self.patience_s)
        messages = [message for message in host.seen[known:] if isinstance(message, AnswerParts)]
        if PARTS not in engines()[self.config.engine].honours:
            assert answer.code == "refused" and "stream" in answer.message and not messages
            return
        assert answer.code == "" and {message.listener for message in messages} == {3}
        assert [first for message in messages for first in message.first] == [(id, 1)]
        parts = [part for message in messages for part in decode_parts(message.frame)]
        assert "".join(part.text for part in parts) == answer.outputs[0].text
        assert [part.finish_reason for part in parts if part.finish_reason] == [answer.outputs[0].finish_reason]
        assert isinstance(host.seen[-1], Answers), "the answer comes last"

    def test_progress_and_busy_time_grow_with_work(self, host: HostHarness) -> None:
        before = host.figures
        assert before is not None
        self.ask(host, list(self.prompts), self.long)
        after = host.figures
        assert after is not None
        assert after.progress > before.progress
        assert after.busy_s > before.busy_s
        assert after.busy_s >= after.fill_s > before.fill_s
        assert after.executing == after.waiting == 0

    def test_a_model_that_fails_to_load_says_why(self, tmp_path: Path) -> None:
        if self.bad_config is None:
            pytest.skip("no config that fails was given")
        with self.start(tmp_path / "log") as host:
            with pytest.raises(LoadingFailed) as failed:
                host.load(self.bad_config, patience_s=self.patience_s)
            assert failed.value.failure.code in ("missing_dependency", "bad_model", "out_of_memory", "error")
            assert failed.value.failure.message
            assert "see " not in failed.value.failure.message.lower()
            assert host.process.wait(self.patience_s) != 0

    def test_it_ends_in_good_order(self, tmp_path: Path) -> None:
        with self.start(tmp_path / "log") as host:
            ready = host.load(self.config, version="weights-7", patience_s=self.patience_s)
            (answer,) = self.ask(host, [self.prompts[0]])
            assert answer.version == ready.capacity.version != "", "an answer says which weights gave it"
            assert host.close() == 0, host.tail()

    def _expect_silence(self, host: HostHarness) -> None:
        """Nothing more is answered: all is done when a later request is, and that is the only answer."""
        (answer,) = self.ask(host, [self.prompts[0]])
        assert answer.code == "", answer.message
        assert host.unclaimed == []
