"""`launch`: a model loaded for use outside a pipeline, in notebooks, scripts and trainers.

    with ps.launch(llm, replicas=2) as pool:
        for generation in pool.generate(["One?", "Two?"], max_tokens=64):
            print(generation.text)

The same plan, executor, hosts and dispatcher as in a run; calls of several threads mix in the replicas' batches.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from penstock.engines.sampling import samples, seed_at
from penstock.errors import PoolFailed, UsageError
from penstock.planning.preflight import check_feasible
from penstock.planning.run_plan import RunPlan
from penstock.planning.targets import Target, open_target
from penstock.protocol.messages import Request
from penstock.runtime.pool.calls import Call, Generation, GenerationError
from penstock.runtime.pool.prompts import Prompt, check_errors, check_timeout, payloads_of
from penstock.runtime.pool.thread import PoolThread
from penstock.runtime.replicas.record import Record
from penstock.spec.fields import is_whole
from penstock.spec.model import Model
from penstock.spec.pipeline import Resources
from penstock.spec.problems import shown
from penstock.spec.sampling import SamplingOptions
from penstock.spec.served import ServedModels
from penstock.steps.sampling import literal_sampling

__all__ = ["LaunchedPool", "launch"]


def launch(
    model: Model,
    *,
    replicas: int | Literal["auto"] | None = None,
    executor: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    placement_group: Any = None,
    resources: Resources | None = None,
    seed: int | None = None,
) -> LaunchedPool:
    """Plan and start the replicas of `model`. They load in the background; `generate` waits for the first one.

    replicas         None: those of the model; auto: as many as fit on the free devices
    executor         local | ray; ray_address and placement_group as in RunOptions
    seed             prompts that sample and have no seed derive theirs from it; None: they have none

    Raises PlanError if the model does not fit, MissingDependency, ConfigError, UsageError, before a model is loaded.
    """
    if not isinstance(model, Model):
        raise UsageError(f"expected a Model, got {shown(model)}; write Model({shown(model)})", where="launch")
    _check_launch(resources, seed)
    name = model.label
    asked = model if replicas is None else _with_replicas(model, replicas)
    served = ServedModels({name: asked}, resources or Resources())
    check_feasible(served)
    holder = f"a launched pool of {name} (process {os.getpid()})"
    target = open_target(executor, holder, ray_address=ray_address, placement_group=placement_group)
    try:
        return LaunchedPool(asked, target.plan(served), target, seed)
    except BaseException:
        target.close()
        raise


def _with_replicas(model: Model, replicas: int | Literal["auto"]) -> Model:
    """A copy with this number of replicas. Raises ConfigError if it is invalid."""
    given = {name: getattr(model, name) for name in model.model_fields_set}
    return Model(**{**given, "replicas": replicas})


def _check_launch(resources: Any, seed: Any) -> None:
    if resources is not None and not isinstance(resources, Resources):
        raise UsageError(f"'resources': expected Resources(...), got {shown(resources)}", where="launch")
    if seed is not None and not is_whole(seed):
        raise UsageError(f"'seed': expected a whole number, got {shown(seed)}", where="launch")


class LaunchedPool:
    """The replicas of one model, started by `launch`. Thread-safe; a context manager. It belongs to the process that
    launched it: a fork of that process can't use it, and does not end it.

    logs: the folder of the replicas' logs; `close` removes it unless the pool failed or had an incident
    """

    def __init__(self, model: Model, planned: RunPlan, target: Target, seed: int | None) -> None:
        self.name = model.label
        self._task = model.task
        self.logs = Path(tempfile.mkdtemp(prefix="penstock-pool-"))
        self._plan, self._target, self._seed = planned, target, seed
        self._calls = itertools.count()
        self._closed = False
        self._process = os.getpid()
        self._record = Record(planned, self.logs)
        self._thread = PoolThread(planned, target.executor(planned), self._record)
        self._served = self._thread.effects.pools[self.name]
        self._thread.start()
        atexit.register(self.close)

    # ------------------------------------------------------------ generate

    @overload
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        errors: Literal["raise"] = "raise",
        timeout_s: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Generation]: ...

    @overload
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        errors: Literal["return"],
        timeout_s: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Generation | GenerationError]: ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        errors: Literal["raise", "return"] = "raise",
        timeout_s: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Generation] | list[Generation | GenerationError]:
        """One Generation per prompt, in order. Blocks; Ctrl-C cancels the call, and the pool stays usable.

        prompts    texts, lists of token ids (passed to the model unchanged), or lists of messages {role, content}
        errors     raise: after all prompts have finished, raise the GenerationError of the first one that failed;
                   return: return each error in place of its generation
        timeout_s  a prompt without an answer after this many seconds fails with code `expired`; its engine aborts it

        Raises PoolFailed if no replica is left, ConfigError for unknown or invalid sampling fields, UsageError for
        invalid prompts and for a model that does not generate.
        """
        check_errors(errors)
        call = self._call(prompts, n, sampling, timeout_s)
        try:
            return _checked(call.wait(), errors)
        except BaseException:
            self._thread.cancel(call)
            raise

    @overload
    async def agenerate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        errors: Literal["raise"] = "raise",
        timeout_s: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Generation]: ...

    @overload
    async def agenerate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        errors: Literal["return"],
        timeout_s: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Generation | GenerationError]: ...

    async def agenerate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        errors: Literal["raise", "return"] = "raise",
        timeout_s: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Generation] | list[Generation | GenerationError]:
        """`generate` for asyncio. Cancelling the call aborts its requests."""
        check_errors(errors)
        call = self._call(prompts, n, sampling, timeout_s)
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        call.when_done(lambda: _tell(loop, done))
        try:
            await done.wait()
            return _checked(call.ended(), errors)
        except BaseException:
            self._thread.cancel(call)
            raise

    def as_completed(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        timeout_s: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[tuple[int, Generation | GenerationError]]:
        """Yields (index of the prompt, its generation or error) as prompts finish. Leaving the loop early cancels the
        rest. Raises as `generate`."""
        call = self._call(prompts, n, sampling, timeout_s)
        try:
            yield from call.as_they_come()
        finally:
            self._thread.cancel(call)

    def stream(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        timeout_s: float | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[tuple[int, Generation | GenerationError]]:
        """Deprecated: `as_completed` under its former name."""
        warnings.warn("pool.stream is deprecated; use pool.as_completed", DeprecationWarning, stacklevel=2)
        return self.as_completed(prompts, n=n, timeout_s=timeout_s, **sampling)

    def embed(self, texts: Sequence[str]) -> list[Any]:
        """Not supported in this version: raises UsageError."""
        raise UsageError("embed is not supported in this version")

    def _call(
        self, prompts: Sequence[Prompt], n: int, sampling: Mapping[str, Any], timeout_s: float | None = None
    ) -> Call:
        if self._closed:
            raise PoolFailed(f"the pool of {self.name} is closed")
        self._refuse_fork()
        if self._task != "generate":
            raise UsageError(f"the model {self.name} has task: {self._task}; generate needs task: generate")
        check_timeout(timeout_s)
        payloads = payloads_of(prompts)
        chosen = literal_sampling(sampling, n)
        number = next(self._calls)
        seed = self._seed if samples(chosen) else None
        requests = [
            Request(payload, chosen, seed=None if seed is None else seed_at(seed, number, index))
            for index, payload in enumerate(payloads)
        ]
        call = Call(self.name, requests, timeout_s)
        if call.requests:
            self._thread.begin(call)
        return call

    def _refuse_fork(self) -> None:
        """A fork has a copy of the pool, and not its thread: a call would wait for ever."""
        if os.getpid() != self._process:
            raise UsageError(
                f"the pool of {self.name} was launched by process {self._process}, and this is process {os.getpid()}, "
                "a fork of it; launch a pool in the process that uses it, or call this one from threads"
            )

    # ------------------------------------------------------------ state

    def ready(self, timeout_s: float | None = None) -> bool:
        """Wait for the first ready replica; False after `timeout_s`. Raises PoolFailed."""
        self._refuse_fork()
        found = self._served.ready.wait(timeout_s)
        if self._served.failure is not None:
            raise PoolFailed(self._served.failure.message) from self._served.failure
        return found

    def stats(self) -> dict[str, Any]:
        """The state of the replicas, as plain data; read without locks, so figures may be of different moments."""
        dispatch, record, links = self._thread.dispatch, self._record, self._thread.driver.replicas.links
        replicas = []
        for index, (planned, seen) in enumerate(zip(self._plan.replicas, dispatch.replicas, strict=True)):
            if planned.pool != self._served.index:
                continue
            link = links.get(index)
            figures = record.replicas[index].plus(link)
            replicas.append(
                {
                    "id": planned.id,
                    "devices": list(record.devices.get(index, planned.devices)),
                    "state": seen.state,
                    "in_flight": len(seen.in_flight),
                    "executing": link.load.executing if link is not None else 0,
                    "answered": figures.rows,
                    "busy_s": round(figures.busy_s, 3),
                    "restarts": figures.restarts,
                }
            )
        pool = record.pools[self._served.index]
        return {
            "model": self.name,
            "waiting": dispatch.pools[self._served.index].waiting(),
            "tokens_in": pool.tokens_in,
            "tokens_out": pool.tokens_out,
            "replicas": replicas,
            "incidents": record.incidents,
        }

    def close(self) -> None:
        """Stop the replicas; calls in progress raise PoolFailed. May be called twice."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        atexit.unregister(self.close)
        wanted = self._served.failure is not None or self._record.incidents  # keep the logs for diagnosis
        self._thread.close()
        self._record.close()
        self._target.close()
        if not wanted:
            shutil.rmtree(self.logs, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tell(loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has been closed: nobody waits
        loop.call_soon_threadsafe(done.set)


def _checked(results: list[Generation | GenerationError], errors: str) -> list[Generation | GenerationError]:
    if errors == "raise":
        for result in results:
            if isinstance(result, GenerationError):
                raise result
    return results
