from __future__ import annotations

import hashlib
import math
import statistics

from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.mock.text import MockWriter, prompt_text
from penstock.protocol.options import Sampling
from penstock.protocol.payloads import TokenIds, chat


def text(prompt: str, sampling: Sampling | None = None, seed: int = 0) -> str:
    return MockWriter(seed).write(prompt, sampling)[0].text


@given(st.text(), st.integers(1, 200))
def test_exactly_max_tokens_words_and_the_first_is_the_prompts_hash(prompt: str, tokens: int) -> None:
    (output,) = MockWriter().write(prompt, Sampling(max_tokens=tokens))
    words = output.text.split(" ")
    assert len(words) == output.tokens_out == tokens
    assert all(words)
    assert output.finish_reason == "length"
    data = prompt.encode("utf-8", "surrogatepass")
    assert words[0] == hashlib.blake2b(data, digest_size=8).hexdigest()


def test_sixteen_tokens_where_the_step_gives_none() -> None:
    assert len(text("a").split()) == len(text("a", Sampling(temperature=1.0)).split()) == 16


def test_the_words_depend_on_prompt_sampling_and_seed_alone() -> None:
    base = text("a", Sampling(max_tokens=9))
    assert text("a", Sampling(max_tokens=9)) == base
    assert text("b", Sampling(max_tokens=9)) != base
    assert text("a", Sampling(max_tokens=9, temperature=0.5)) != base
    assert text("a", Sampling(max_tokens=9, seed=1)) != base
    assert text("a", Sampling(max_tokens=9), seed=1) != base
    writer = MockWriter()
    other = Sampling(max_tokens=9, top_k=3)
    assert writer.write("a", other)[0].text != writer.write("a", Sampling(max_tokens=9))[0].text
    assert writer.write("a", Sampling(max_tokens=9))[0].text == base


def test_several_outputs_differ_after_the_first_word() -> None:
    outputs = MockWriter().write("a", Sampling(n=5, max_tokens=4))
    assert len({output.text for output in outputs}) == 5
    assert len({output.text.split()[0] for output in outputs}) == 1


def test_a_number_for_each_token() -> None:
    (output,) = MockWriter().write("a", Sampling(max_tokens=7, logprobs=0))
    assert output.token_ids is not None and output.logprobs is not None
    assert len(output.token_ids) == len(output.logprobs) == 7
    assert all(number <= 0 for number in output.logprobs)


def test_lengths_are_log_normal_around_the_median() -> None:
    writer = MockWriter(0, 64.0, 1.0)
    lengths = [writer.write(f"prompt {n}", Sampling(max_tokens=100_000))[0].tokens_out for n in range(4000)]
    logs = [math.log(length) for length in lengths]
    assert abs(statistics.median(lengths) - 64) < 6
    assert abs(statistics.stdev(logs) - 1.0) < 0.05


def test_an_early_end_is_a_stop_and_max_tokens_still_caps() -> None:
    writer = MockWriter(3, 20.0, 1.0)
    outputs = [writer.write(f"p{n}", Sampling(max_tokens=20))[0] for n in range(200)]
    assert {output.finish_reason for output in outputs} == {"stop", "length"}
    assert all(output.tokens_out == 20 for output in outputs if output.finish_reason == "length")
    assert all(1 <= output.tokens_out < 20 for output in outputs if output.finish_reason == "stop")
    ignored = writer.write("p1", Sampling(max_tokens=20, ignore_eos=True))[0]
    assert (ignored.tokens_out, ignored.finish_reason) == (20, "length")


def test_the_length_is_the_prompts_and_the_seeds() -> None:
    def length(prompt: str, seed: int) -> int:
        return MockWriter(seed, 500.0, 1.0).write(prompt, Sampling(max_tokens=10**5))[0].tokens_out

    assert length("a", 0) == length("a", 0)
    assert len({length("a", 0), length("a", 1), length("b", 0)}) == 3


def test_messages_are_their_lines() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert prompt_text(chat(messages)) == "system: Be brief.\nuser: Why?"
    assert prompt_text("as it is") == "as it is"
    assert prompt_text(TokenIds([3, 1])) == "3 1"
