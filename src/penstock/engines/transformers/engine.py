"""The engine for any causal language model of the transformers library, on a GPU or on CPU cores.

One worker thread owns the model. Each of its turns: take what was submitted, tokenise it, prefill newcomers (those of
similar length together, within a budget of tokens), give every running row one more token, answer the rows that
ended. Rows join and leave at every turn, so a slot is never kept for a neighbour that takes longer.

Greedy answers are those of `model.generate` for the same prompt alone: exactly in float32, and in lower precisions up
to what batched matrix products round differently; with `max_num_seqs: 1` exactly in every precision (docs/engines.md).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from penstock.engines.base import Emit, PromptCounter, Sleeper
from penstock.engines.sampling import RowFault, fit, resolve
from penstock.engines.transformers.load import Loaded, load_model
from penstock.engines.transformers.row import Job, Row, rows_of
from penstock.protocol.messages import Answer, Capacity, EngineConfig, Request
from penstock.protocol.options import Sampling

if TYPE_CHECKING:
    from penstock.engines.transformers.cohorts import CohortDecoder
    from penstock.engines.transformers.slots import SlotDecoder

__all__ = ["TransformersEngine"]

PATIENCE_STEPS = 4
"""Turns that a newcomer waits for company at the most while other rows run: a prefill of several costs little more
than a prefill of one."""


class TransformersEngine(Sleeper, PromptCounter):
    """See penstock.engines.base.Engine."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._submitted: list[Request] = []
        self._aborted: set[int] = set()
        self._closed = False
        self._failure: BaseException | None = None
        self._progress = 0
        self._thread: threading.Thread | None = None
        self._jobs: dict[int, Job] = {}
        self._waiting: deque[Row] = deque()
        self._waited = 0
        self._sized: Callable[[int, int], None] = lambda number, tokens: None

    def report_sizes(self, sized: Callable[[int, int], None]) -> None:
        self._sized = sized

    def load(self, config: EngineConfig, emit: Emit, note: Callable[[str], None]) -> Capacity:
        self._emit = emit
        self._loaded = loaded = load_model(config, note)
        self._device = loaded.model.device
        self._decoder = _decoder(loaded)
        self._warm_up()
        self._thread = threading.Thread(target=self._work, name="transformers", daemon=True)
        self._thread.start()
        return self._capacity()

    def _capacity(self) -> Capacity:
        loaded = self._loaded
        return Capacity(
            slots=loaded.slots,
            kv_tokens=loaded.kv_tokens,
            max_model_len=loaded.max_model_len,
            facts=loaded.facts,
            shared=True,
            can_sleep=self._device.type == "cuda",
        )

    def sleep(self) -> None:
        """The weights wait in the machine's memory; the worker has nothing to do meanwhile."""
        import torch

        with self._wake:
            self._decoder.clear()
            self._loaded.model.to("cpu")
        torch.cuda.empty_cache()

    def wake(self) -> Capacity:
        with self._wake:
            self._loaded.model.to(self._device)
        return self._capacity()

    def submit(self, requests: Sequence[Request]) -> None:
        self._raise_failure()
        with self._wake:
            self._submitted.extend(requests)
            self._wake.notify()

    def abort(self, ids: Sequence[int]) -> None:
        with self._wake:
            gone = set(ids)
            self._aborted |= gone
            self._submitted = [each for each in self._submitted if each.id not in gone]
            self._wake.notify()

    def progress(self) -> int:
        self._raise_failure()
        return self._progress

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _warm_up(self) -> None:
        """Run every kernel once, so that the first row does not pay for it."""
        import torch

        sampling = fit(resolve(Sampling(max_tokens=1, temperature=0.0), self._loaded.defaults, 0), 1, 0)
        job = Job(Request("", id=-1), sampling, [self._loaded.pad_id])
        with torch.inference_mode():
            self._draw(lambda: self._decoder.add(rows_of(job, frozenset(), self._loaded.decode)))
        self._decoder.clear()
        self._progress += 1

    def _work(self) -> None:
        import torch

        try:
            with torch.inference_mode():
                while self._take():
                    self._turn()
        except BaseException as error:
            self._failure = error

    def _take(self) -> bool:
        """Take what was submitted and aborted, waiting when there is nothing to do. False once closed."""
        with self._wake:
            while not (self._closed or self._submitted or self._aborted or self._jobs):
                self._wake.wait()
            submitted, self._submitted = self._submitted, []
            aborted, self._aborted = self._aborted, set()
            closed = self._closed
        self._forget(aborted)
        faults = [fault for each in submitted if (fault := self._admit(each)) is not None]
        if faults:
            self._answer(faults)
        return not closed

    def _admit(self, request: Request) -> Answer | None:
        """Tokenise a request and put its rows into the queue; an answer where that is refused."""
        loaded = self._loaded
        prompt_ids: list[int] = []
        try:
            sampling = resolve(request.sampling, loaded.defaults, request.seed)
            prompt_ids = loaded.encoder.encode(request.payload)
            self._sized(request.id, len(prompt_ids))
            job = Job(request, fit(sampling, len(prompt_ids), loaded.max_model_len), prompt_ids)
            self._check_memory(job)
        except RowFault as fault:
            return fault.answer(request, len(prompt_ids))
        self._jobs[request.id] = job
        self._waiting.extend(rows_of(job, loaded.eos_ids, loaded.decode))
        return None

    def _check_memory(self, job: Job) -> None:
        need, have = len(job.prompt_ids) + (job.sampling.max_tokens or 0), self._loaded.kv_tokens
        if need > have:
            raise RowFault("too_long", f"prompt and max_tokens take {need} tokens; kv_cache_gb holds {have}")

    def _forget(self, aborted: set[int]) -> None:
        if not aborted:
            return
        for each in aborted:
            if (job := self._jobs.pop(each, None)) is not None:
                job.aborted = True
        self._waiting = deque(row for row in self._waiting if not row.job.aborted)
        self._decoder.drop({index for index, row in enumerate(self._decoder.rows) if row.job.aborted})

    def _turn(self) -> None:
        """One prefill at most, then one token for every row that was running before it."""
        running = len(self._decoder.rows)
        joining = self._joining()
        try:
            if joining:
                start = len(self._decoder.rows)
                drawn = self._draw(lambda: self._decoder.add(joining))
                self._settle(self._decoder.rows[start:], drawn, start)
            if running and self._decoder.rows:
                self._settle(self._decoder.rows, self._draw(self._decoder.step), 0)
        except MemoryError as error:
            self._out_of_memory(joining, error)

    def _draw(self, compute: Callable[[], Any]) -> Any:
        import torch

        try:
            return compute()
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    def _joining(self) -> list[Row]:
        """Newcomers to prefill now: of those that have room, neighbours in length, within the budget of tokens."""
        if not self._waiting:
            return []
        fitting: list[Row] = []
        while self._waiting and self._decoder.room(fitting, self._waiting[0]):
            fitting.append(self._waiting.popleft())
        running = len(self._decoder.rows)
        self._waited += 1
        if running and len(fitting) < running // 8 and self._waited < PATIENCE_STEPS:
            self._waiting.extendleft(reversed(fitting))
            return []
        first = fitting[0] if fitting else None
        fitting.sort(key=lambda row: len(row.prompt_ids))
        joining, left = _within_budget(fitting, first, self._loaded.prefill_tokens)
        self._waiting.extendleft(reversed(left))
        if joining:
            self._waited = 0
        return joining

    def _settle(self, rows: Sequence[Row], drawn: Any, start: int) -> None:
        """Give the rows in slots `start` and up their tokens, answer those that ended, and free their slots."""
        self._progress += 1
        answers: list[Answer] = []
        ended: set[int] = set()
        for slot, (row, token, logprob, sound) in enumerate(zip(list(rows), *drawn, strict=True), start):
            if not sound or row.job.aborted:
                ended.add(slot)
                if not row.job.aborted:
                    answers.append(self._fail(row, "the model's output is not a number (NaN)"))
            elif row.append(token, logprob):
                ended.add(slot)
                if (answer := row.job.end(row)) is not None:
                    del self._jobs[row.job.request.id]
                    answers.append(answer)
        if ended:
            self._decoder.drop(ended, wipe=not all(drawn[2]))
        if answers:
            self._answer(answers)

    def _fail(self, row: Row, message: str) -> Answer:
        """Give up the attempt that a row belongs to; its other rows leave at the next turn."""
        job = self._jobs.pop(row.job.request.id)
        job.aborted = True
        self._waiting = deque(each for each in self._waiting if not each.job.aborted)
        return RowFault("retry", message).answer(job.request, len(job.prompt_ids))

    def _out_of_memory(self, joining: Sequence[Row], error: MemoryError) -> None:
        """Start the running rows again, fewer at a time; a row that does not fit alone fails."""
        import torch

        rows = self._decoder.clear()
        known = set(map(id, rows))
        rows += [row for row in joining if id(row) not in known and not row.finish_reason]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self._decoder.shrink():
            self._answer([self._fail(row, f"out of memory with a single row: {error}") for row in rows[:1]])
            rows = rows[1:]
        for row in rows:
            row.restart()
        self._waiting.extendleft(reversed([row for row in rows if not row.job.aborted]))

    def _answer(self, answers: Sequence[Answer]) -> None:
        self._progress += 1
        self._emit(answers)


def _decoder(loaded: Loaded) -> SlotDecoder | CohortDecoder:
    from penstock.engines.transformers.cohorts import CohortDecoder
    from penstock.engines.transformers.slots import SlotDecoder

    if loaded.batching == "slots":
        return SlotDecoder(loaded.model, loaded.slots, loaded.kv_tokens, loaded.pad_id)
    return CohortDecoder(loaded.model, loaded.slots, loaded.kv_tokens, loaded.pad_id, loaded.takes_positions)


def _within_budget(rows: list[Row], first: Row | None, budget: int) -> tuple[list[Row], list[Row]]:
    """A window of rows sorted by length that holds `first` and whose padded size is within the budget of tokens."""
    if first is None:
        return [], []
    low = rows.index(first)
    high = low + 1
    while high < len(rows) and (high + 1 - low) * len(rows[high].prompt_ids) <= budget:
        high += 1
    while low > 0 and (high - low + 1) * len(rows[high - 1].prompt_ids) <= budget:
        low -= 1
    return rows[low:high], rows[:low] + rows[high:]
