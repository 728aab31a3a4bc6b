"""The vllm engine in a host of its own, under an interpreter with vLLM, against vLLM's own offline class.

In float32, since batches that are put together differently round differently in bfloat16, and the tokens then part.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from engine_driver import DOCWRITER, signatures, tokens

from penstock.protocol.messages import EngineConfig, Requests, WireRequest
from penstock.protocol.options import Sampling
from penstock.protocol.payloads import Messages, chat
from penstock.testing.harness import HostEnded, HostHarness, LoadingFailed

pytestmark = [pytest.mark.vllm, pytest.mark.process, pytest.mark.timeout(900)]

PROMPTS = signatures(60)
GREEDY = Sampling(max_tokens=24, temperature=0.0, logprobs=0)
LOAD_S = 400.0
EAGER = {"enforce_eager": True}  # compiling takes longer than the tests


def environment() -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return {**os.environ, **quiet}


def start(folder: Path, python: str) -> HostHarness:
    return HostHarness(folder / "host.log", python=python, env=environment())


def end(host: HostHarness) -> None:
    """The host's whole group: vLLM's children outlive a host that is killed."""
    kill_group(host.process.pid)
    host.__exit__(None, None, None)


def kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def config(**options: Any) -> EngineConfig:
    return EngineConfig("vllm", DOCWRITER, dtype="float32", engine_options={**EAGER, **options}, cores=(0,))


@pytest.fixture(scope="module")
def host(vllm_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostHarness]:
    harness = start(tmp_path_factory.mktemp("vllm"), vllm_python)
    try:
        harness.load(config(), patience_s=LOAD_S)
        yield harness
    finally:
        end(harness)


def prompt_ids(prompt: str) -> list[int]:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(DOCWRITER)
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


def run_in_group(command: list[str], log: Path) -> None:
    """Run to the end, and leave nothing behind: vLLM's children are of the same group."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment(), stdout=file, stderr=file, start_new_session=True)
        try:
            assert process.wait(LOAD_S) == 0, log.read_text(errors="replace")[-4096:]
        finally:
            kill_group(process.pid)
            process.wait()


def test_greedy_equals_vllm_itself(host: HostHarness, vllm_python: str, tmp_path: Path) -> None:
    asked = {
        "model": DOCWRITER,
        "options": {"dtype": "float32", **EAGER},
        "prompts": [prompt_ids(prompt) for prompt in PROMPTS],
        "sampling": {"max_tokens": 24, "temperature": 0.0},
    }
    question, reply = tmp_path / "asked.json", tmp_path / "reply.json"
    question.write_text(json.dumps(asked))
    script = Path(__file__).with_name("vllm_reference.py")
    run_in_group([vllm_python, str(script), str(question), str(reply)], tmp_path / "reference.log")
    assert tokens(host.ask(PROMPTS, GREEDY)) == json.loads(reply.read_text())["tokens"]


def test_capacity_is_the_engines_own(host: HostHarness) -> None:
    from penstock.protocol.messages import Ready

    capacity = next(message for message in host.seen if isinstance(message, Ready)).capacity
    assert capacity.slots == 256  # the limit of the offline class, not the 128 of a bare engine
    assert capacity.max_model_len == 1024
    blocks, block_tokens = capacity.facts["kv_blocks"], capacity.facts["block_tokens"]
    assert capacity.kv_tokens == int(blocks) * int(block_tokens) > 10_000


def test_answers_tell_tokens_reason_and_logprobs(host: HostHarness) -> None:
    full = host.ask(PROMPTS[:1], GREEDY)[0]
    cut = host.ask(PROMPTS[:1], Sampling(max_tokens=2, temperature=0.0))[0]
    assert full.tokens_in == len(prompt_ids(PROMPTS[0]))
    assert (full.outputs[0].finish_reason, cut.outputs[0].finish_reason) == ("stop", "length")
    output = full.outputs[0]
    assert output.logprobs is not None and output.token_ids is not None
    assert len(output.logprobs) == len(output.token_ids) == output.tokens_out
    assert all(value <= 0 for value in output.logprobs)
    assert (cut.outputs[0].tokens_out, cut.outputs[0].token_ids) == (2, None)


def test_seed_n_stop_and_messages(host: HostHarness) -> None:
    sampling = Sampling(max_tokens=12, temperature=1.0, seed=5, n=4)
    message = chat([{"role": "user", "content": PROMPTS[0]}])
    first, second = host.ask([PROMPTS[0], message], sampling)
    assert [output.text for output in first.outputs] == [output.text for output in second.outputs]
    assert len(first.outputs) == 4 and len({output.text for output in first.outputs}) > 1
    text = host.ask(PROMPTS[:1], GREEDY)[0].outputs[0].text
    stopped = host.ask(PROMPTS[:1], Sampling(max_tokens=24, temperature=0.0, stop=(text[5:8],)))[0].outputs[0]
    assert (stopped.text, stopped.finish_reason) == (text[: text.index(text[5:8])], "stop")


def test_a_row_at_fault_gets_a_code_and_the_others_their_answers(host: HostHarness) -> None:
    long = "word " * 1500
    assert host.ask([long], GREEDY)[0].code == "too_long"
    assert host.ask(PROMPTS[:1], Sampling(max_tokens=1020))[0].code == "too_long"
    refused = host.ask(PROMPTS[:1], Sampling(temperature=3.0))[0]
    assert refused.code == "refused" and "temperature" in refused.message  # vLLM's own limit and words
    mixed = host.ask([PROMPTS[0], Messages([]), PROMPTS[1]], GREEDY)
    assert [answer.code for answer in mixed] == ["", "refused", ""]


def test_progress_grows_without_an_answer(host: HostHarness) -> None:
    assert host.figures is not None
    before = host.figures.progress
    number = host.request(PROMPTS[0], Sampling(max_tokens=900, temperature=0.0, ignore_eos=True))
    host.until(lambda: host.figures is not None and host.figures.progress > before + 5, "progress", 120)
    answer = host.answers(1, 240)[0]
    assert (answer.id, answer.outputs[0].tokens_out) == (number, 900)


def test_an_aborted_request_is_not_answered(host: HostHarness) -> None:
    from penstock.protocol.messages import Abort

    number = host.request(PROMPTS[0], Sampling(max_tokens=900, temperature=0.0, ignore_eos=True))
    host.send(Abort([number]))
    assert host.ask(PROMPTS[:1], GREEDY)[0].id == number + 1


def test_a_dead_engine_core_ends_the_replica(vllm_python: str, tmp_path: Path) -> None:
    import psutil

    host = start(tmp_path, vllm_python)
    try:
        host.load(config(), patience_s=LOAD_S)
        host.send(Requests([WireRequest(1, 1, PROMPTS[0], 0)], [Sampling(max_tokens=900, ignore_eos=True)]))
        children = psutil.Process(host.process.pid).children(recursive=True)
        core = [
            child for child in children if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline())
        ]
        assert core, [child.cmdline() for child in children]
        core[0].kill()
        with pytest.raises(HostEnded):
            host.answers(1, 60)
        assert host.process.wait(120) == 1
    finally:
        end(host)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"enforce_eagre": True}, "enforce_eager"),
        pytest.param({"max_model_len": 5}, "max_model_len", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_option_is_said(vllm_python: str, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    host = start(tmp_path, vllm_python)
    try:
        with pytest.raises(LoadingFailed, match=words):
            host.load(config(**options), patience_s=LOAD_S)
    finally:
        end(host)


def test_a_model_that_is_none_is_said(vllm_python: str, tmp_path: Path) -> None:
    host = start(tmp_path, vllm_python)
    try:
        with pytest.raises(LoadingFailed) as raised:
            host.load(EngineConfig("vllm", str(tmp_path / "nothing"), cores=(0,)), patience_s=LOAD_S)
        assert "nothing" in raised.value.failure.message
    finally:
        end(host)
