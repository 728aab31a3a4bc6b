"""Tasks: rendering requests from rows, and turning answers into columns, expanded rows or dead rows.

Everything here is done at once, on the loop's thread; each call returns the events that it brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from sys import getsizeof
from typing import Any

import msgspec

from penstock.core import events as ev
from penstock.core.events import CHILD_BASE, Event
from penstock.data.sizes import memory_of
from penstock.engines.sampling import output_limit, samples, seed_at
from penstock.errors import InvariantError
from penstock.ledger.base import PaidResult, PaidResults
from penstock.protocol.messages import Answer, Request
from penstock.protocol.payloads import Payload, guessed_tokens
from penstock.runtime.replicas.record import Record
from penstock.runtime.retry.scope import Selection
from penstock.runtime.rows.paid import PaidAnswers
from penstock.runtime.rows.store import RowStore
from penstock.spec.graph import StepNode
from penstock.steps.base import Children, Columns, Failed, Filtered, Outcome, StepLogic

_KEPT_TOKENS = 2048  # of a payload; a window of longer ones would take more memory than its rows
_VALUE_BYTES = 64  # of memory for a value beside its text


class Ended(msgspec.Struct):
    """Collects how tasks of one call ended, to tell the flow in as few events as possible."""

    done: list[int] = []
    growth_bytes: list[int] = []
    filtered: list[int] = []
    dead: list[int] = []
    events: list[Event] = []

    def all(self, cause: int) -> list[Event]:
        found = self.events
        if self.done:
            found.append(ev.TasksDone(cause=cause, tasks=self.done, growth_bytes=self.growth_bytes))
        if self.filtered:
            found.append(ev.TasksFiltered(cause=cause, tasks=self.filtered))
        if self.dead:
            found.append(ev.TasksDead(cause=cause, tasks=self.dead))
        return found


class Tasks:
    def __init__(
        self,
        nodes: Sequence[StepNode],
        logics: Sequence[StepLogic],
        pool_of_step: dict[int, int],
        store: RowStore,
        record: Record,
        seed: int | None,
        paid: PaidResults | None = None,
        selection: Selection | None = None,
    ) -> None:
        """paid: answers of the invocations before, for rows that have not ended; these are not asked for again.
        selection: only these are run again, of children too"""
        self._names = [node.name for node in nodes]
        self._logics = logics
        self._pool_of_step = pool_of_step
        self._store = store
        self._record = record
        self._seed = seed
        self._count = len(nodes)
        # Requests that are not answered yet, so that they can be sent again. A long payload is not kept (None): it is
        # rendered again from its row each time.
        self._asked: dict[int, Request] = {}
        self._children: dict[int, list[tuple[int, dict[str, Any]]]] = {}  # with their indexes
        self._selection = selection
        # A row of its own that has passed the last step of a chain has ended: there is nothing to keep of it.
        self._last = len(nodes) - 1 if _is_chain(nodes) else -1
        self._paid = PaidAnswers(store, paid or {}, self._count) if _keeps(nodes, logics) else None

    # ------------------------------------------------------------ tasks begin

    def start(self, instruction: ev.StartTasks) -> list[Event]:
        logic = self._logics[instruction.step]
        if logic.pool is None:
            return self._run_here(logic, instruction)
        submit = ev.Submit(
            cause=instruction.id,
            pool=self._pool_of_step[instruction.step],
            step=instruction.step,
            tasks=[],
            orders=[],
            tokens_in=[],
            tokens_out=[],
        )
        ended = Ended()
        rows, count, asked, render = self._store.rows, self._count, self._asked, logic.render
        chain, before, step = self._store.views is None, self._store.before, instruction.step
        longest = _KEPT_TOKENS if self._last >= 0 else inf  # in a chain the row stays as it is until the answer comes
        seed, known = self._seed, self._paid.known if self._paid is not None else None
        rank = count - 1 - instruction.step  # later steps first, as the dispatcher has it; equals stay in its order
        for task, order in zip(instruction.tasks, instruction.orders, strict=True):
            if known and order in known and self._replayed(task, ended):
                continue
            found = render(rows[task // count] if chain else before(task // count, step))
            if isinstance(found, Failed):
                self._record_dead(task, found, 0, ended)
                continue
            sampling = found.sampling
            found.id, found.step, found.rank = task, instruction.step, rank
            if seed is not None and sampling is not None and samples(sampling):
                found.seed = self._seed_of(seed, task)
            tokens_in = guessed_tokens(found.payload)
            if tokens_in > longest:
                found.payload = None
            asked[task] = found
            submit.tasks.append(task)
            submit.orders.append(order)
            submit.tokens_in.append(tokens_in)
            submit.tokens_out.append(output_limit(sampling))
        events = ended.all(instruction.id)
        if submit.tasks:
            events.append(submit)
        return events

    def _replayed(self, task: int, ended: Ended) -> bool:
        """Whether an invocation before has the answer; then it is taken as if it came now."""
        assert self._paid is not None
        answer = self._paid.find(task)
        if answer is None:
            return False
        if answer.code:
            self._record_dead(task, Failed(answer.code, answer.message), answer.attempt, ended)
        else:
            row, step = divmod(task, self._count)
            self._conclude(task, self._logics[step].apply(self._store.before(row, step), answer), 1, ended)
        return True

    def _run_here(self, logic: StepLogic, instruction: ev.StartTasks) -> list[Event]:
        ended = Ended()
        for task in instruction.tasks:
            row = self._store.before(task // self._count, instruction.step)
            self._conclude(task, logic.apply(row, None), 0, ended)
        return ended.all(instruction.id)

    def _seed_of(self, seed: int, task: int) -> int:
        """63 bits from run, row and step, so that a retry repeats them and a resumed run equals an undisturbed one."""
        row, step = divmod(task, self._count)
        position, path = self._store.source_place(row)
        return seed_at(seed, self._names[step], position, path)

    def requests(self, send: ev.Send) -> list[Request]:
        """What an instruction to send means."""
        found = []
        for task, attempt in zip(send.tasks, send.attempts, strict=True):
            request = self._asked[task]
            request.attempt = attempt
            if request.payload is None:
                request = msgspec.structs.replace(request, payload=self._render_again(task))
            found.append(request)
        return found

    def _render_again(self, task: int) -> Payload | None:
        row, step = divmod(task, self._count)
        found = self._logics[step].render(self._store.before(row, step))
        if isinstance(found, Failed):
            raise InvariantError(f"the request of task {task} was rendered, and now is not: {found.message}")
        return found.payload

    # ------------------------------------------------------------ tasks end

    def deliver(self, deliver: ev.Deliver, items: Sequence[Answer]) -> list[Event]:
        ended = Ended()
        rows, logics, count, forget = self._store.rows, self._logics, self._count, self._asked.__delitem__
        done, growth_bytes = ended.done, ended.growth_bytes
        keep, last = self._paid.keep if self._paid is not None else None, self._last
        chain, before, put = self._store.views is None, self._store.before, self._store.put
        for index in deliver.accepted:
            answer = items[index]
            task = answer.id
            row, step = divmod(task, count)
            if keep is not None and (step != last or row >= CHILD_BASE):
                keep(task, answer)
            outcome = logics[step].apply(rows[row] if chain else before(row, step), answer)
            forget(task)
            if type(outcome) is Columns:
                if chain:
                    rows[row] = outcome.row
                else:
                    put(row, step, outcome.row)
                done.append(task)
                growth_bytes.append(_growth(answer))
            else:
                self._conclude(task, outcome, 1, ended)
        return ended.all(deliver.id)

    def fail(self, failed: ev.FailRequests, items: Sequence[Answer]) -> list[Event]:
        """Requests that ended without a result: their rows die with the engine's message, or the dispatcher's."""
        ended = Ended()
        for at, task in enumerate(failed.tasks):
            index = failed.indexes[at]
            message = failed.messages[at] if index < 0 else items[index].message
            if self._paid is not None:
                self._paid.keep(task, Answer(task, failed.attempts[at], failed.codes[at], message))
            self._record_dead(task, Failed(failed.codes[at], message), failed.attempts[at], ended)
        return ended.all(failed.id)

    def _conclude(self, task: int, outcome: Outcome, attempts: int, ended: Ended) -> None:
        row, step = divmod(task, self._count)
        if isinstance(outcome, Columns):
            self._store.put(row, step, outcome.row)
            ended.done.append(task)
            ended.growth_bytes.append(0)
        elif isinstance(outcome, Filtered):
            if self._store.end_early(row):
                ended.filtered.append(task)
        elif isinstance(outcome, Children):
            self._expand(task, outcome.rows, outcome.sizes_bytes, ended)
        else:
            self._record_dead(task, outcome, attempts, ended)

    def _expand(self, task: int, rows: list[dict[str, Any]], sizes_bytes: list[int], ended: Ended) -> None:
        children = list(enumerate(rows))
        if self._selection is not None:
            position, path = self._store.source_place(task // self._count)
            lost = self._selection.missing(position, path, len(rows))
            if lost is not None:
                message = f"the function returned {len(rows)} rows for this row; child {list(lost)} was dead before"
                self._record_dead(task, Failed("function_result", message), 1, ended)
                return
            children = [child for child in children if self._selection.wants(position, (*path, child[0]))]
        self._children[task] = children
        sizes = sizes_bytes if len(sizes_bytes) == len(children) else [memory_of(child) for _, child in children]
        ended.events.append(ev.TaskExpanded(task=task, sizes_bytes=sizes))

    def _record_dead(self, task: int, failed: Failed, attempts: int, ended: Ended) -> None:
        row, step = divmod(task, self._count)
        self._asked.pop(task, None)
        store = self._store
        if store.end_early(row):
            held = None if store.views is None else store.before(row, step)
            dead = store.record_dead(row, self._names[step], failed.code, failed.message, attempts, held)
            self._record.on_dead_row(dead)
            ended.dead.append(task)

    def adopt(self, adopt: ev.Adopt) -> None:
        self._store.adopt(adopt.task // self._count, adopt.first_row, self._children.pop(adopt.task))

    def take_paid(self, ended: Sequence[int], partial: Sequence[int]) -> list[PaidResult]:
        """For a commit: what is new of the source rows `partial`; what is kept of `ended` is of no use any more."""
        return self._paid.take(ended, partial) if self._paid is not None else []

    def cancel(self, tasks: Sequence[int]) -> None:
        for task in tasks:
            self._asked.pop(task, None)


def _is_chain(nodes: Sequence[StepNode]) -> bool:
    followed = [before for node in nodes for before in node.after]
    return len(followed) == len(set(followed)) == len(nodes) - 1


def _keeps(nodes: Sequence[StepNode], logics: Sequence[StepLogic]) -> bool:
    """Whether a row can have a paid result before it has ended: never where one step is all that there is."""
    return len(nodes) > 1 and any(logic.pool is not None for logic in logics)


def _growth(answer: Answer) -> int:
    if answer.outputs:
        return sum(
            getsizeof(output.text) + _VALUE_BYTES * (1 + len(output.logprobs or ())) for output in answer.outputs
        )
    return memory_of(answer.value)
