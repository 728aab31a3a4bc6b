"""The thread of launched pools: one driver for any number of them, over the shipped dispatcher alone."""

from __future__ import annotations

import threading
from weakref import WeakSet

from penstock.core.check import dispatch_checks
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.events import OpenPools
from penstock.errors import InvariantError, PoolFailed
from penstock.executors.base import Executor
from penstock.planning.launches import dispatch_shape, launches_of
from penstock.planning.run_plan import RunPlan
from penstock.runtime.driver import Driver
from penstock.runtime.inbox import Inbox
from penstock.runtime.pool.calls import Begin, Call, Cancel, CloseLoop
from penstock.runtime.pool.effects import PoolEffects
from penstock.runtime.replicas.record import Record
from penstock.runtime.watch.clock import RunClock
from penstock.runtime.watch.stalls import LOOK_S, Activity, Stalls
from penstock.runtime.watch.watchdog import LOOP_LIMIT_S, stacks

__all__ = ["PoolThread"]


class PoolThread(threading.Thread):
    """Serves calls until it is closed, or an exception ends it; no call waits for longer than that.

    A broken invariant that is found while it is idle is an incident: noted, its story logged, and the pools continue,
    since the check has changed nothing. One that a machine meets in the middle of a turn ends the thread: the turn is
    half done. A loop that is blocked (`watch.watchdog`) fails its calls; nothing can end a thread, so it is left
    behind.
    """

    def __init__(self, plan: RunPlan, executor: Executor, record: Record) -> None:
        super().__init__(name="penstock-pools", daemon=True)
        self.dispatch, self.record = Dispatch(dispatch_shape(plan)), record
        self.effects = PoolEffects([pool.name for pool in plan.pools], [replica.pool for replica in plan.replicas])
        self._inbox = Inbox()
        self._lock = threading.Lock()
        self._handed_over: WeakSet[Call] = WeakSet()  # wherever the thread may be with them when it ends
        self.driver = Driver(
            self.dispatch,
            self.effects,
            clock=RunClock(),
            inbox=self._inbox,
            executor=executor,
            launches=[launches_of(replica, record.logs) for replica in plan.replicas],
            record=record,
            checks=dispatch_checks(self.dispatch),
            on_broken=self._incident,
        )
        self._blocked = False
        self._turning = Activity(lambda seconds: "", limit_s=LOOP_LIMIT_S, over=self._give_up)
        self.stalls = Stalls(record.note)
        self.stalls.add(self._turning)

    # ------------------------------------------------------------ by any thread

    def begin(self, call: Call) -> None:
        """Raises PoolFailed where its pool has failed, or the thread has ended."""
        with self._lock:
            failure = self.effects.pools[call.pool].failure
            if failure is not None:
                raise PoolFailed(failure.message) from failure
            self._handed_over.add(call)
            self._inbox.put(Begin(call=call))

    def cancel(self, call: Call) -> None:
        self._inbox.put(Cancel(call=call))

    def close(self) -> None:
        """End the replicas and the thread; calls under way fail."""
        self._inbox.put(CloseLoop())
        while self.is_alive() and not self._blocked:
            self.join(LOOK_S)
        if not self.is_alive():
            self._inbox.close()

    # ------------------------------------------------------------ the thread

    def run(self) -> None:
        failure = PoolFailed("the pool is closed")
        self.stalls.start()
        self._turning.begin()
        try:
            opened = OpenPools(pools=list(range(len(self.dispatch.pools))))
            self.driver.run([opened], watch=lambda now: self._turning.begin())
        except BaseException as error:  # waiting callers must be notified
            failure = PoolFailed(f"the pool's thread ended: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self.record.failed(failure.message, failure.exit_code)
        finally:
            self.stalls.close()
            self._end(failure)
            self.driver.close()

    def _end(self, failure: PoolFailed) -> None:
        with self._lock:  # a call is handed over before this, and failed here; or it is refused
            for served in self.effects.pools.values():
                served.fail(failure)
            for call in self._handed_over:
                call.fail(self.effects.pools[call.pool].failure or failure)

    def _give_up(self, seconds: int) -> None:
        """By the thread of `stalls`."""
        self._blocked = True
        self.record.log_story(f"the loop was blocked for {seconds} s:\n{stacks()}")
        where = f"its stack traces are in {self.record.log}"
        self._end(PoolFailed(f"the pool's loop was blocked for {seconds} s; {where}. Launch the model again"))

    def _incident(self, error: InvariantError) -> None:
        self.record.incident(str(error))
