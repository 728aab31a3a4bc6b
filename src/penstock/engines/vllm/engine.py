"""The engine for vLLM: its asynchronous engine, inside the host.

    submit -> one thread resolves sampling and tokenises -> the asyncio loop adds, one task per request -> emit

vLLM gets token ids, asks nothing back until a request is final, and batches as it likes: the host keeps
`max_num_seqs` requests in it. The engine core is a process of its own, so the work of this process overlaps with it.

A request that vLLM aborts by itself is no result: its attempt has failed. When the engine core dies, `progress` and
`submit` raise, which ends the replica.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from penstock.engines.base import Emit, PromptCounter, Sleeper
from penstock.engines.loop_thread import LoopThread
from penstock.engines.sampling import Resolved, RowFault, fit, resolve
from penstock.engines.vllm.errors import fault_of, is_death
from penstock.engines.vllm.load import on_gpu, start_vllm
from penstock.protocol.messages import Answer, Capacity, EngineConfig, Output, Request

__all__ = ["VllmEngine"]

ENCODE_AT_ONCE = 16
"""Requests tokenised before they are handed over: the first ones start while the others are tokenised."""

Ready = tuple[Request, Any, Any]  # the request, vLLM's prompt, vLLM's sampling parameters


class VllmEngine(Sleeper, PromptCounter):
    """See penstock.engines.base.Engine."""

    def __init__(self) -> None:
        self._sized: Callable[[int, int], None] = lambda number, tokens: None
        self._worker = LoopThread("vllm")
        self._encoding = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vllm-tokens")
        self._live: dict[int, int] = {}  # request id -> attempt; the loop's thread and the caller's both touch it
        self._failure: BaseException | None = None
        self._progress = 0
        self._engine: Any = None

    def load(self, config: EngineConfig, emit: Emit, note: Callable[[str], None]) -> Capacity:
        self._emit = emit
        self._started = started = start_vllm(config, note)
        self._engine = started.engine
        self._count_steps()
        self._to_prompt = _prompt_maker()
        self._worker.start()
        self._can_sleep = config.sleeps and on_gpu(config)
        return self._capacity()

    def _capacity(self) -> Capacity:
        started = self._started
        return Capacity(
            slots=started.slots,
            kv_tokens=started.kv_tokens,
            max_model_len=started.max_model_len,
            facts=started.facts,
            shared=True,
            can_sleep=self._can_sleep,
        )

    def sleep(self) -> None:
        """Level 1: the weights wait in the machine's memory, the KV cache is forgotten."""
        self._worker.result(self._engine.sleep(level=1))

    def wake(self) -> Capacity:
        self._worker.result(self._engine.wake_up())
        return self._capacity()

    def report_sizes(self, sized: Callable[[int, int], None]) -> None:
        self._sized = sized

    def submit(self, requests: Sequence[Request]) -> None:
        self._raise_failure()
        for each in requests:
            self._live[each.id] = each.attempt
        for start in range(0, len(requests), ENCODE_AT_ONCE):
            self._encoding.submit(self._encode, list(requests[start : start + ENCODE_AT_ONCE]))

    def abort(self, ids: Sequence[int]) -> None:
        for each in ids:
            self._live.pop(each, None)
        self._worker.cancel(ids)

    def progress(self) -> int:
        if self._failure is None and self._engine is not None and self._engine.errored:
            self._failure = self._engine.dead_error
        self._raise_failure()
        return self._progress

    def close(self) -> None:
        self._encoding.shutdown(wait=True, cancel_futures=True)
        self._live.clear()
        self._worker.cancel_all()
        if self._engine is not None:
            self._engine.shutdown()
        self._worker.close()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _count_steps(self) -> None:
        """Only final outputs are asked for, so a step is seen where vLLM takes the engine core's outputs in."""
        processor: Any = getattr(self._engine, "output_processor", None)
        original = getattr(processor, "process_outputs", None)
        if original is None:
            return

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._progress += 1
            return original(*args, **kwargs)

        processor.process_outputs = counted

    def _encode(self, requests: list[Request]) -> None:
        """In the tokenising thread: what vLLM is to be given, or the answer to what can't be given."""
        ready: list[Ready] = []
        for request in requests:
            tokens = 0
            try:
                sampling = resolve(request.sampling, self._started.defaults, request.seed)
                ids = self._started.encoder.encode(request.payload)
                tokens = len(ids)
                self._sized(request.id, tokens)
                params = sampling_params(fit(sampling, tokens, self._started.max_model_len))
                ready.append((request, self._to_prompt(ids), params))
            except RowFault as fault:
                self._finish(fault.answer(request, tokens))
            except Exception as error:
                self._finish(fault_of(error).answer(request, tokens))
        self._worker.loop.call_soon_threadsafe(self._begin, ready)

    def _begin(self, ready: list[Ready]) -> None:
        for request, prompt, params in ready:
            if self._live.get(request.id) == request.attempt:
                self._worker.begin(request.id, self._answer(request, prompt, params))

    async def _answer(self, request: Request, prompt: Any, params: Any) -> None:
        """One request through vLLM. If cancelled, the request is aborted in vLLM, and no answer is sent."""
        try:
            final = None
            async for output in self._engine.generate(prompt, params, request_id=f"{request.id}-{request.attempt}"):
                final = output
            answer = answer_of(request, final, params.n)
        except RowFault as fault:
            answer = fault.answer(request)
        except Exception as error:
            if is_death(error):
                self._failure = error  # no answer: the request is not at fault, and the replica ends
                return
            answer = fault_of(error).answer(request)
        self._worker.end(request.id)
        self._finish(answer)

    def _finish(self, answer: Answer) -> None:
        if self._live.get(answer.id) == answer.attempt:
            del self._live[answer.id]
            self._progress += 1
            self._emit([answer])


def _prompt_maker() -> Callable[[list[int]], Any]:
    """Token ids as vLLM takes them: already rendered where this version has that, which saves it a detour."""
    try:
        from vllm.inputs import tokens_input
    except ImportError:
        from vllm import TokensPrompt

        return lambda ids: TokensPrompt(prompt_token_ids=ids)
    return lambda ids: tokens_input(ids)


def sampling_params(sampling: Resolved) -> Any:
    """vLLM's parameters. Raises what vLLM raises for values that it refuses."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=sampling.n,
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        temperature=0.0 if sampling.greedy else sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        stop=list(sampling.stop),
        seed=sampling.seed,
        # Only the chosen token's is handed on, and 0 is what vLLM calls that.
        logprobs=None if sampling.logprobs is None else 0,
        ignore_eos=sampling.ignore_eos,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def answer_of(request: Request, final: Any, n: int) -> Answer:
    """The answer from vLLM's final output. Raises RowFault("retry") for what is no result, aborted ones above all."""
    if final is None or not final.finished or len(final.outputs) != n:
        raise RowFault("retry", "vLLM ended the request without a final output")
    outputs = [_output(each) for each in sorted(final.outputs, key=lambda each: each.index)]
    return Answer(request.id, request.attempt, outputs=outputs, tokens_in=len(final.prompt_token_ids or ()))


def _output(each: Any) -> Output:
    if each.finish_reason not in ("stop", "length", "repetition"):
        raise RowFault("retry", f"vLLM ended the request with {each.finish_reason!r}, which is not a result")
    ids = list(each.token_ids)
    reason = "length" if each.finish_reason == "length" else "stop"
    if each.logprobs is None:
        return Output(each.text, reason, len(ids))
    logprobs = [float(step[token].logprob) for token, step in zip(ids, each.logprobs, strict=True)]
    return Output(each.text, reason, len(ids), ids, logprobs)
