"""The transformers engine against the library itself, and its behaviour as an engine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from engine_driver import DOCWRITER, EngineDriver, signatures, texts, tokens  # noqa: E402

from penstock.engines.base import EngineLoadError  # noqa: E402
from penstock.engines.transformers.engine import TransformersEngine  # noqa: E402
from penstock.protocol.messages import EngineConfig  # noqa: E402
from penstock.protocol.options import Sampling  # noqa: E402
from penstock.protocol.payloads import Messages, Pair, chat  # noqa: E402

pytestmark = pytest.mark.transformers

GREEDY = Sampling(max_tokens=24, temperature=0.0, logprobs=0)
PROMPTS = signatures(48)


def driver(ref: str = DOCWRITER, dtype: str = "float32", **options: Any) -> EngineDriver:
    config = EngineConfig("transformers", ref, dtype=dtype, engine_options=options, cores=(0,))
    return EngineDriver(TransformersEngine(), config)


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineDriver]:
    with driver(max_num_seqs=8) as loaded:
        yield loaded


class Library:
    """The same model in the library's own hands: one prompt at a time."""

    def __init__(self, ref: str, dtype: str) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(ref)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(ref, dtype=dtype).eval()

    def ids(self, prompt: str) -> list[int]:
        messages = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False)

    def greedy(self, prompt: str, max_new_tokens: int = 24, **options: Any) -> list[int]:
        ids = torch.tensor([self.ids(prompt)])
        mask = torch.ones_like(ids)
        options = {"max_new_tokens": max_new_tokens, "do_sample": False, "attention_mask": mask, **options}
        return self.model.generate(ids, **options)[0, ids.shape[1] :].tolist()


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(DOCWRITER, "float32")


@pytest.fixture(scope="module")
def expected(library: Library) -> list[list[int]]:
    return [library.greedy(prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("options", [{"max_num_seqs": 16}, {"max_num_seqs": 5, "max_num_batched_tokens": 70}])
def test_greedy_in_batches_equals_the_library_alone(options: dict[str, Any], expected: list[list[int]]) -> None:
    with driver(**options) as loaded:
        assert loaded.capacity.facts["batching"] == "slots"
        assert tokens(loaded.ask(PROMPTS, GREEDY)) == expected


def test_greedy_in_cohorts_equals_the_library_alone(expected: list[list[int]]) -> None:
    with driver(max_num_seqs=16, batching="cohorts") as loaded:
        assert tokens(loaded.ask(PROMPTS, GREEDY)) == expected


def test_greedy_of_one_row_at_a_time_equals_the_library_in_bfloat16() -> None:
    library = Library(DOCWRITER, "bfloat16")
    with driver(dtype="auto", max_num_seqs=1) as loaded:
        assert loaded.capacity.facts["dtype"] == "bfloat16"
        assert tokens(loaded.ask(PROMPTS[:24], GREEDY)) == [library.greedy(prompt) for prompt in PROMPTS[:24]]


def test_penalties_and_minimum_length_equal_the_library(engine: EngineDriver, library: Library) -> None:
    prompts = PROMPTS[:8]
    sampling = Sampling(max_tokens=24, min_tokens=12, repetition_penalty=1.3, temperature=0.0, logprobs=0)
    wanted = [library.greedy(prompt, min_new_tokens=12, repetition_penalty=1.3) for prompt in prompts]
    assert tokens(engine.ask(prompts, sampling)) == wanted


TINY: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 16},
    "gemma3_text": {"num_key_value_heads": 2, "sliding_window": 16, "head_dim": 8},
    "qwen2": {"num_key_value_heads": 1},
}


@pytest.mark.parametrize(("kind", "batching"), [("llama", "slots"), ("gpt2", "slots"), ("qwen2", "slots"),
                                                ("mistral", "cohorts"), ("gemma3_text", "cohorts")])  # fmt: skip
def test_greedy_of_other_architectures_equals_the_library(kind: str, batching: str, tmp_path: Path) -> None:
    """Small models with random weights: full attention in slots, sliding windows in cohorts."""
    ref = make_tiny_model(kind, tmp_path)
    library = Library(ref, "float32")
    with driver(ref, max_num_seqs=4) as loaded:
        assert loaded.capacity.facts["batching"] == batching
        answers = loaded.ask(PROMPTS[:10], GREEDY)
    assert tokens(answers) == [library.greedy(prompt) for prompt in PROMPTS[:10]]


def make_tiny_model(kind: str, folder: Path) -> str:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    common = {
        "vocab_size": 4096,
        "max_position_embeddings": 256,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    config = transformers.AutoConfig.for_model(kind, **{**sizes, **common, **TINY[kind]})
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(DOCWRITER).save_pretrained(folder)
    return str(folder)


def test_logprobs_are_of_the_raw_distribution(engine: EngineDriver, library: Library) -> None:
    sampling = Sampling(max_tokens=6, temperature=0.7, top_k=3, seed=11, logprobs=0)
    output = engine.ask(PROMPTS[:1], sampling)[0].outputs[0]
    assert output.token_ids is not None and output.logprobs is not None
    prompt = library.ids(PROMPTS[0])
    logits = library.model(torch.tensor([prompt + output.token_ids])).logits[0, len(prompt) - 1 : -1]
    wanted = logits.float().log_softmax(-1).gather(-1, torch.tensor(output.token_ids)[:, None])[:, 0]
    assert output.logprobs == pytest.approx(wanted.tolist(), abs=1e-3)
    assert len(output.logprobs) == output.tokens_out


def test_answers_tell_tokens_and_reason(engine: EngineDriver, library: Library) -> None:
    full, cut = engine.ask([PROMPTS[0]] * 2, [GREEDY, Sampling(max_tokens=2, temperature=0.0)])
    assert full.tokens_in == cut.tokens_in == len(library.ids(PROMPTS[0]))
    assert (full.outputs[0].finish_reason, cut.outputs[0].finish_reason) == ("stop", "length")
    assert full.outputs[0].token_ids is not None and full.outputs[0].tokens_out == len(full.outputs[0].token_ids)
    assert (cut.outputs[0].tokens_out, cut.outputs[0].token_ids) == (2, None)
    assert full.outputs[0].text == library.tokenizer.decode(full.outputs[0].token_ids, skip_special_tokens=True)


def test_a_seed_repeats_whatever_runs_beside_it(engine: EngineDriver) -> None:
    sampling = Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=5)
    alone = texts(engine.ask(PROMPTS[:1], sampling))
    assert texts(engine.ask(PROMPTS[:6], sampling))[:1] == alone
    unseeded = Sampling(max_tokens=12, temperature=1.0)
    assert texts(engine.ask(PROMPTS[:1], unseeded, seed=1)) == texts(engine.ask(PROMPTS[:1], unseeded, seed=1))
    many = {texts(engine.ask(PROMPTS[:1], unseeded, seed=seed))[0] for seed in range(8)}
    assert len(many) > 1


def test_n_gives_that_many_different_outputs(engine: EngineDriver) -> None:
    sampling = Sampling(max_tokens=12, temperature=1.2, n=12, seed=3)
    answer = engine.ask(PROMPTS[:1], sampling)[0]
    assert len(answer.outputs) == 12  # more than the engine has slots
    assert len({output.text for output in answer.outputs}) > 1
    assert texts(engine.ask(PROMPTS[:1], sampling))[0] == answer.outputs[0].text


def test_stop_strings_end_and_are_left_out(engine: EngineDriver) -> None:
    text = texts(engine.ask(PROMPTS[:1], GREEDY))[0]
    stop = text[len(text) // 2 :][:3]
    output = engine.ask(PROMPTS[:1], Sampling(max_tokens=24, temperature=0.0, stop=(stop, "never to be seen")))[
        0
    ].outputs[0]
    assert output.text == text[: text.index(stop)]
    assert output.finish_reason == "stop"


def test_min_tokens_and_ignore_eos_go_on(engine: EngineDriver) -> None:
    longer = Sampling(max_tokens=30, min_tokens=20, temperature=0.0)
    ignoring = Sampling(max_tokens=30, temperature=0.0, ignore_eos=True)
    first, second = engine.ask(PROMPTS[:1] * 2, [longer, ignoring])
    assert first.outputs[0].tokens_out >= 20
    assert (second.outputs[0].tokens_out, second.outputs[0].finish_reason) == (30, "length")


def test_a_prompt_is_a_user_message_unless_chat_is_off(engine: EngineDriver, library: Library) -> None:
    message = chat([{"role": "user", "content": PROMPTS[0]}])
    as_prompt, as_messages = engine.ask([PROMPTS[0], message], GREEDY)
    assert as_prompt.outputs == as_messages.outputs
    with driver(chat=False) as raw:
        assert raw.ask([PROMPTS[0]], GREEDY)[0].tokens_in == len(library.tokenizer.encode(PROMPTS[0]))


def test_what_does_not_fit_is_too_long_and_nothing_is_cut(engine: EngineDriver) -> None:
    long = "word " * 1500
    asked = Sampling(max_tokens=1020, temperature=0.0)
    first, second, good = engine.ask([long, PROMPTS[0], PROMPTS[0]], [GREEDY, asked, GREEDY])
    assert (first.code, second.code, good.code) == ("too_long", "too_long", "")
    assert str(first.tokens_in) in first.message and "1024" in first.message
    assert "max_tokens is 1020" in second.message


@pytest.mark.parametrize(
    ("payload", "sampling", "words"),
    [
        (Messages([]), GREEDY, "without a message"),
        (Pair("a", ["b"]), GREEDY, "'pair'"),
        ("hello", Sampling(temperature=-1.0), "temperature is -1.0"),
        ("hello", Sampling(top_p=1.5), "top_p is 1.5"),
        ("hello", Sampling(temperature=0.0, n=2), "temperature 0"),
        ("hello", Sampling(max_tokens=0), "max_tokens is 0"),
        ("hello", Sampling(stop=("",)), "empty string"),
        ("hello", Sampling(max_tokens=4, min_tokens=5), "min_tokens is 5"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    engine: EngineDriver, payload: Any, sampling: Sampling, words: str
) -> None:
    answer = engine.ask([payload], sampling)[0]
    assert answer.code == "refused"
    assert words in answer.message


def test_an_aborted_request_is_not_answered_and_frees_its_place(engine: EngineDriver) -> None:
    endless = Sampling(max_tokens=900, temperature=0.0, ignore_eos=True)
    doomed = engine.submit(PROMPTS[:8], endless)
    engine.wait(engine.submit(PROMPTS[:1], Sampling(temperature=-1.0)))  # taken in turn: the others are inside now
    engine.engine.abort(doomed)
    answers = engine.ask(PROMPTS[:2], GREEDY)
    assert [answer.code for answer in answers] == ["", ""]
    assert not {answer.id for answer in engine.answered} & set(doomed)


def test_running_out_of_memory_starts_rows_again_and_loses_none(expected: list[list[int]]) -> None:
    with driver(max_num_seqs=8) as loaded:
        fail_once(loaded, after_steps=3)
        assert tokens(loaded.ask(PROMPTS[:12], GREEDY)) == expected[:12]


def test_a_row_that_runs_out_of_memory_alone_fails_its_attempt() -> None:
    with driver(max_num_seqs=1) as loaded:
        fail_once(loaded, after_steps=3)
        first, second = loaded.ask(PROMPTS[:2], GREEDY)
    assert (first.code, second.code) == ("retry", "")
    assert "out of memory" in first.message


def fail_once(loaded: EngineDriver, after_steps: int) -> None:
    decoder = loaded.engine._decoder  # type: ignore[attr-defined]
    step, steps = decoder.step, iter(range(1000))

    def failing() -> Any:
        if next(steps) == after_steps:
            raise torch.OutOfMemoryError("planted")
        return step()

    decoder.step = failing


def test_a_broken_worker_is_told_by_progress() -> None:
    with driver(max_num_seqs=2) as loaded:
        loaded.engine._decoder.step = lambda: 1 / 0  # type: ignore[attr-defined]
        loaded.submit(PROMPTS[:2], GREEDY)
        loaded.engine._thread.join(60)  # type: ignore[attr-defined]
        with pytest.raises(ZeroDivisionError):
            loaded.engine.progress()
        with pytest.raises(ZeroDivisionError):
            loaded.submit(PROMPTS[:1], GREEDY)


def test_a_row_whose_logits_are_not_numbers_fails_alone(expected: list[list[int]]) -> None:
    """Its neighbours, and the row that gets its slot next, are as if it had never been."""
    with driver(max_num_seqs=4) as loaded:
        poison_slot(loaded, slot=1)
        answers = loaded.ask(PROMPTS[:8], GREEDY)
    assert sorted(answer.code for answer in answers) == [*[""] * 7, "retry"]
    assert [got for got in tokens(answers) if got is not None] == [
        want for want, answer in zip(expected, answers, strict=False) if not answer.code
    ]


def poison_slot(loaded: EngineDriver, slot: int) -> None:
    decoder = loaded.engine._decoder  # type: ignore[attr-defined]
    step, steps = decoder.step, iter(range(1000))

    def poisoned() -> Any:
        if next(steps) == 2:
            for layer in decoder._cache.layers:
                layer.values[slot] = torch.nan
        return step()

    decoder.step = poisoned


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        (EngineConfig("transformers", DOCWRITER, engine_options={"max_num_seq": 4}), "bad_model", "'max_num_seqs'"),
        (EngineConfig("transformers", DOCWRITER, engine_options={"max_num_seqs": "4"}), "bad_model", "expected int"),
        (EngineConfig("transformers", DOCWRITER, tensor_parallel=2), "bad_model", "engine: vllm"),
        (EngineConfig("transformers", DOCWRITER, max_model_len=4096), "bad_model", "1024"),
        (EngineConfig("transformers", DOCWRITER, quantization="fp8"), "bad_model", "fp8"),
        (EngineConfig("transformers", DOCWRITER, engine_options={"batching": "rows"}), "bad_model", "cohorts"),
    ],
)
def test_what_can_not_be_loaded_is_said(config: EngineConfig, code: str, words: str) -> None:
    with pytest.raises(EngineLoadError, match=words) as raised:
        TransformersEngine().load(config, lambda answers: None, lambda note: None)
    assert raised.value.code == code


def test_a_folder_without_a_model_is_a_bad_model(tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match="can't be loaded") as raised:
        TransformersEngine().load(EngineConfig("transformers", str(tmp_path)), lambda answers: None, lambda note: None)
    assert raised.value.code == "bad_model"


def test_a_model_that_was_not_copied_whole_is_a_bad_model(tmp_path: Path) -> None:
    for name, words in (("tokenizer.json", "it has no tokenizer"), ("model.safetensors", "copy them again")):
        folder = tmp_path / name
        shutil.copytree(DOCWRITER, folder)
        if name == "tokenizer.json":
            for part in folder.glob("tokenizer*"):
                part.unlink()
        else:
            (folder / name).write_bytes((folder / name).read_bytes()[:1000])
        with pytest.raises(EngineLoadError, match=words) as raised:
            TransformersEngine().load(EngineConfig("transformers", str(folder)), lambda answers: None, print)
        assert raised.value.code == "bad_model"
