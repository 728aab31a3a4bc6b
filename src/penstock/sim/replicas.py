"""A simulated replica: the queue of a host in front of an engine with slots, as host/host.py has it.

    Requests ──▶ waiting ──slot free──▶ executing ──its time──▶ outbox ──report──▶ Answers
                    └── TakeBack ──▶ returned

A message travels for `latency_s`; one connection keeps the order of its messages, unless a fault says otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.core import events as ev
from penstock.core.events import Event, StartReplica
from penstock.sim.pipeline import Path
from penstock.sim.service import Remote, Said

if TYPE_CHECKING:
    from penstock.sim.coordinator import Coordinator
    from penstock.sim.scenario import HostShape

__all__ = ["Host", "SimAnswer", "SimRequest"]

HEARTBEAT_S = 0.5
OUT_OF_MEMORY = "oom"
DEVICE_FAILED = "device failed"
KILL_S = 0.3  # at most, from the order to the end of the processes
POISON_S = 0.02  # of executing before it kills


class SimRequest(Struct, gc=False):
    """What a host is sent: the request, and which row and step it is about."""

    task: int
    attempt: int
    position: int
    path: Path
    step: int
    tokens_in: int
    tokens_out: int
    priority: int


class SimAnswer(Struct, gc=False):
    """`forged`: nobody may take it for a result; says why."""

    task: int
    attempt: int
    value: tuple[int, Path, int]  # position, path, step: what was asked
    code: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    forged: str = ""


class Host:
    """state: loading | ready | hung | asleep | dead."""

    def __init__(self, coordinator: Coordinator, replica: int, start: StartReplica) -> None:
        self.coordinator = coordinator
        self.world = coordinator.world
        self.shape: HostShape = coordinator.shapes[replica]
        self.replica = replica
        self.incarnation = start.incarnation
        self.rung = start.rung
        self.slots = max(1, int(self.shape.slots * start.share))
        self.kv_tokens = int(self.shape.kv_tokens * start.share)
        self.state = "loading"
        self.beats = True
        self.waiting: deque[SimRequest] = deque()
        self.executing: dict[int, SimRequest] = {}
        network = self.world.network
        self.remote = Remote(self, network, network.shape, self._answered) if network.shape is not None else None
        self._outbox: list[SimAnswer] = []
        self._report_due = False
        self._missed: list[Callable[[], None]] = []  # what came while it hung
        self._progress = 0
        self._arrived_at = 0.0  # when the newest message arrives: what keeps their order

    # ------------------------------------------------------------ life

    def start(self) -> None:
        rates, chance = self.world.strikes.rates(), self.world.strikes.chance()
        load_s = self.shape.load_s
        if self.rung < self.shape.memory_rung:
            self.later(load_s, self._load_out_of_memory)
        elif chance < rates.load_crash:
            self.later(load_s / 2, partial(self.die, "load: crash"))
        elif chance < rates.load_crash + rates.load_failed:
            self.later(load_s, self._load_failed)
        elif chance < rates.load_crash + rates.load_failed + rates.load_hang:
            self.world.tally.hit("load: hang")
            self.beats = self.world.strikes.chance() < 0.5
        else:
            self.later(load_s, self._ready)
        self.later(HEARTBEAT_S, self._beat)

    def later(self, delay_s: float, callback: Callable[[], object]) -> None:
        """Run in the host, unless it is dead by then."""

        def run() -> Iterable[Event]:
            if self.state != "dead":
                callback()
            return ()

        self.world.at(delay_s, run)

    def _ready(self) -> None:
        if self.state != "loading":
            return
        self.state = "ready"
        ready = ev.ReplicaReady(
            replica=self.replica,
            incarnation=self.incarnation,
            slots=self.slots,
            kv_tokens=self.kv_tokens,
        )
        self._post(lambda: [ready], faulty=False)
        self._begin()

    def _load_failed(self) -> None:
        self.state = "dead"
        self.world.tally.hit("load: failed")
        failed = ev.ReplicaLoadFailed(replica=self.replica, incarnation=self.incarnation, reason="bad model")
        self._post(lambda: [failed], faulty=False)

    def _load_out_of_memory(self) -> None:
        """It says so; the coordinator ends it."""
        self.world.tally.hit("load: out of memory")
        failed = ev.ReplicaLoadFailed(
            replica=self.replica, incarnation=self.incarnation, reason="out of memory", out_of_memory=True
        )
        self._post(lambda: [failed], faulty=False)

    def sleep(self) -> None:
        if self.state != "ready":
            return
        chance = self.world.strikes.chance()
        if chance < self.world.strikes.rates().load_hang:
            self.world.tally.hit("sleep: hang")
            self.state = "hung"
        else:
            self.later(self.shape.sleep_s, self._asleep)

    def _asleep(self) -> None:
        if self.state != "ready":
            return
        self.world.tally.hit("asleep")
        self.state = "asleep"
        asleep = ev.ReplicaAsleep(replica=self.replica, incarnation=self.incarnation)
        self._post(lambda: [asleep], faulty=False)

    def wake(self) -> None:
        if self.state != "asleep":
            return
        self.state = "loading"
        rates, chance = self.world.strikes.rates(), self.world.strikes.chance()
        if chance < rates.load_crash:
            self.later(self.shape.sleep_s, partial(self.die, "wake: crash"))
        elif chance < rates.load_crash + rates.load_hang:
            self.world.tally.hit("wake: hang")
        elif chance < rates.load_crash + rates.load_hang + rates.load_failed:
            self.later(self.shape.sleep_s, self._wake_failed)
        else:
            self.world.tally.hit("woken")
            self.later(self.shape.sleep_s, self._ready)

    def _wake_failed(self) -> None:
        self.world.tally.hit("wake: failed")
        failed = ev.ReplicaLoadFailed(replica=self.replica, incarnation=self.incarnation, reason="no memory to wake")
        self._post(lambda: [failed], faulty=False)

    def die(self, reason: str) -> None:
        """Its processes end, and the coordinator hears of it."""
        if self.state == "dead":
            return
        self.state = "dead"
        self.world.tally.hit(reason)
        self.tell_lost(reason, 0.0, out_of_memory=reason == OUT_OF_MEMORY)

    def tell_lost(self, reason: str, delay_s: float, *, out_of_memory: bool = False) -> None:
        jitter = self.world.strikes.chance()
        lost = ev.ReplicaLost(
            replica=self.replica,
            incarnation=self.incarnation,
            reason=reason,
            jitter=jitter,
            out_of_memory=out_of_memory,
            device_failed=reason == DEVICE_FAILED,
        )
        self.world.at(delay_s + self.world.scenario.latency_s, lambda: self.coordinator.lost(lost))

    def kill(self) -> None:
        self.later(KILL_S * self.world.strikes.chance(), partial(self.die, "kill of a replica"))

    def hang(self, *, beats: bool) -> None:
        if self.state in ("ready", "loading"):
            self.world.tally.hit("hang")
            self.state, self.beats = "hung", beats

    def stall(self, duration_s: float) -> None:
        """Do nothing for a while, as a stopped process; then continue with what was left."""
        if self.state == "ready":
            self.state, self.beats = "hung", False
            self.later(duration_s, self._go_on)

    def _go_on(self) -> None:
        self.state, self.beats = "ready", True
        self.later(0.0, self._beat)
        for request in self.executing.values():
            fate = self.world.pipeline.fate(request.position, request.path, request.step)
            self._run(request, fate, self.shape.token_s)
            if fate == "poison":
                self.later(0.0, partial(self._poisoned, request))
        missed, self._missed = self._missed, []
        for message in missed:
            message()
        self._report_soon()
        self._begin()

    # ------------------------------------------------------------ messages to it

    def receive(self, message: Callable[[], None]) -> None:
        """A message of the coordinator has arrived."""
        if self.state == "hung":
            self._missed.append(message)
        else:
            message()

    def requests(self, items: Sequence[SimRequest]) -> None:
        self.waiting = deque(sorted([*self.waiting, *items], key=lambda request: request.priority))
        self._begin()

    def take_back(self, tasks: Sequence[int]) -> None:
        if self.state != "ready":
            return
        asked = set(tasks)
        returned = [request.task for request in self.waiting if request.task in asked]
        self.waiting = deque(request for request in self.waiting if request.task not in asked)
        self.world.tally.hit("take-back: some" if returned else "take-back: empty")
        self._report(returned)

    def abort(self, tasks: Sequence[int]) -> None:
        gone = set(tasks)
        self.waiting = deque(request for request in self.waiting if request.task not in gone)
        for task in tasks:
            request = self.executing.pop(task, None)
            if self.remote is not None:
                self.remote.cancel(task)
            if request is not None and self.world.strikes.chance() < self.world.strikes.rates().answers_aborted:
                self.world.tally.hit("answer: aborted request")
                self._outbox.append(self._answer(request, forged="the request was aborted"))
                self._report_soon()
        self._begin()

    # ------------------------------------------------------------ the engine

    def _begin(self) -> None:
        """Give the engine what it has room for."""
        if self.state != "ready":
            return
        room = self.slots + self.shape.ahead
        while self.waiting and len(self.executing) < room and self._has_tokens_for(self.waiting[0]):
            request = self.waiting.popleft()
            self.executing[request.task] = request
            if self.world.scenario.streams and request.position % 3 == 0:
                self._first_part(request)
            fate = self.world.pipeline.fate(request.position, request.path, request.step)
            if fate == "poison":
                self.later(POISON_S, partial(self._poisoned, request))
            slow = self.world.strikes.slowness(self.replica)
            self._run(request, fate, (1 + request.tokens_out) * self.shape.token_s * slow)

    def _first_part(self, request: SimRequest) -> None:
        first = ev.FirstParts(
            replica=self.replica, incarnation=self.incarnation, tasks=[request.task], attempts=[request.attempt]
        )
        self._post(lambda: [first], faulty=False)

    def _run(self, request: SimRequest, fate: str, takes_s: float) -> None:
        if self.remote is None:
            self.later(takes_s, partial(self._finish, request, fate))
        else:
            self.remote.cancel(request.task)
            self.remote.ask(request, "refused" if fate == "refused" else "", takes_s)

    def _answered(self, request: SimRequest, said: Said) -> None:
        """What a service said, or that it could not be asked."""
        self._finish(request, self.world.pipeline.fate(request.position, request.path, request.step), said)

    def _has_tokens_for(self, request: SimRequest) -> bool:
        if not self.shape.kv_tokens or not self.executing:
            return True
        held = sum(executing.tokens_in + executing.tokens_out for executing in self.executing.values())
        return held + request.tokens_in + request.tokens_out <= self.shape.kv_tokens

    def _poisoned(self, request: SimRequest) -> None:
        if self.executing.get(request.task) is request and self.state == "ready":
            self.die("crash")

    def _finish(self, request: SimRequest, fate: str, said: Said | None = None) -> None:
        if self.state != "ready" or self.executing.get(request.task) is not request or fate == "poison":
            return
        del self.executing[request.task]
        code = ("refused" if fate == "refused" else "") if said is None else said.code
        if not code and self.world.strikes.chance() < self.world.strikes.rates().retry:
            self.world.tally.hit("answer: retry")
            code = "retry"
        self._progress += 1
        answer = self._answer(request, code=code)
        if said is not None:
            answer.value = said.value
        self._outbox.append(answer)
        self._begin()
        self._report_soon()

    def _answer(self, request: SimRequest, *, code: str = "", forged: str = "") -> SimAnswer:
        value = (request.position, request.path, request.step)
        return SimAnswer(
            request.task, request.attempt, value, code, request.tokens_in, 0 if code else request.tokens_out, forged
        )

    # ------------------------------------------------------------ messages from it

    def _report_soon(self) -> None:
        """Answers that are ready together go together."""
        if not self._report_due:
            self._report_due = True
            self.later(self.world.scenario.report_s, self._report)

    def _report(self, returned: list[int] | None = None) -> None:
        self._report_due = False
        if self.state == "ready" and (self._outbox or returned is not None):
            answers, self._outbox = self._outbox, []
            self.tell(answers, returned)

    def tell(
        self, answers: list[SimAnswer], returned: list[int] | None = None, *, incarnation: int | None = None
    ) -> None:
        """Send an Answers message; `incarnation` other than its own only where a fault forges one."""
        self._post(
            partial(
                self.coordinator.answered,
                self.replica,
                self.incarnation if incarnation is None else incarnation,
                answers,
                returned,
                (len(self.executing), len(self.waiting), self.progress()),
            ),
            faulty=True,
        )

    def progress(self) -> int:
        """Grows with every answer, and with every twentieth of a second that something executes."""
        if self.state == "ready" and self.executing:
            self._progress += 1
        return self._progress

    def _beat(self) -> None:
        if self.beats and self.state in ("loading", "ready", "hung", "asleep"):
            beat = ev.HeartbeatArrived(
                replica=self.replica,
                incarnation=self.incarnation,
                executing=len(self.executing),
                waiting=len(self.waiting),
                progress=self.progress(),
            )
            self._post(lambda: [beat], faulty=False)
            self.later(HEARTBEAT_S, self._beat)

    def _post(self, deliver: Callable[[], Iterable[Event]], *, faulty: bool) -> None:
        """Send one message to the coordinator, through whatever befalls it."""
        strikes, now = self.world.strikes, self.world.now
        arrives = now + self.world.scenario.latency_s
        for copy in strikes.befalls() if faulty else ("",):
            if copy == "late":
                arrives += 0.3 + 2.0 * strikes.chance()
            if copy == "reordered":
                at = arrives + strikes.chance()
            else:
                at = self._arrived_at = max(arrives, self._arrived_at)
            self.world.at(at - now, deliver)
