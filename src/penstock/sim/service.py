"""A replica whose engine is a remote service behind a faulty proxy, as engines/openai/engine.py has it.

    request ──connection──▶ proxy ──▶ service ──reply──▶ proxy ──▶ connection ──▶ core/service.py judges ──▶ answer
                                                         └── late, lost, twice, another's, nobody's

The shipped rule (`penstock.core.service`) says which connection a request takes, whose a reply is, and when to ask
again; here is only what happens on the way. Nothing notices bytes that come on an idle connection: they wait there and
are the first reply that the next request sees. What no client could notice does not happen: replies are swapped only
where all of them repeat the request's mark, and an earlier one comes in place of another only where it has a mark or an
id that was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from penstock.core.service import SAME_ID_LIMIT, Asked, Connection, Reply, Service, mark
from penstock.sim.pipeline import Path

if TYPE_CHECKING:
    from penstock.sim.replicas import Host, SimRequest

__all__ = ["Network", "Remote", "Said", "ServiceShape", "draw_service"]

SHARE = 0.2  # of the scenarios
TRIES = 6
TIME_LIMIT_S = 1.5
LATENESS_S = 0.8
SWAP_WAITS_S = 0.2
OFTEN = {"swallowed": 0.3, "swapped": 4.0}  # beside the other faults: what costs long, and what needs two

Done = Callable[["SimRequest", "Said"], None]


class ServiceShape(Struct, frozen=True):
    """identity: mark (all replies repeat the request's), some (half of them do), ids, one (the same for all), none.

    alike: all answers have the same bytes, but for the id. The others: the chance of each fault of a reply.
    """

    identity: str
    alike: bool
    late: float = 0.0
    dropped: float = 0.0
    swallowed: float = 0.0
    twice: float = 0.0
    asked_twice: float = 0.0
    stray: float = 0.0
    swapped: float = 0.0
    earlier: float = 0.0


class Said(Struct, frozen=True):
    """A reply: what it answers, and what it says of itself. value: of sim.replicas.SimAnswer."""

    value: tuple[int, Path, int]
    code: str
    reply: Reply


class ServiceCall(Struct):
    request: SimRequest
    code: str  # what the service makes of it
    service_s: float
    tries: int = 0
    asked: Asked = Asked("", "")
    wire: Wire | None = None


class Wire(Struct):
    """A connection: who waits for a reply on it, and what has come that nobody waited for."""

    rule: Connection
    call: ServiceCall | None = None
    unread: list[Said] = []
    closed: bool = False


def draw_service(seed: int) -> ServiceShape | None:
    """What the replicas of the scenario ask, where that is a service."""
    rng = Random(f"{seed}/endpoint")  # a stream of its own
    if rng.random() >= SHARE:
        return None
    identity = rng.choice(("mark", "mark", "some", "ids", "ids", "one", "none"))
    chances = {}
    for name in ("late", "dropped", "swallowed", "twice", "asked_twice", "stray", "swapped", "earlier"):
        if rng.random() < 0.6:
            chances[name] = rng.choice((0.02, 0.1)) * rng.random() * OFTEN.get(name, 1.0)
    if identity != "mark":
        chances.pop("swapped", None)
    if identity not in ("mark", "ids"):
        chances.pop("earlier", None)
    return ServiceShape(identity, rng.random() < 0.5, **chances)


class Network:
    """What the services of all replicas share: chance, numbers, and a reply that waits to be swapped."""

    def __init__(self, seed: int, shape: ServiceShape | None) -> None:
        self.shape = shape
        self.rng = Random(f"{seed}/network")
        self.swapping: tuple[Remote, Wire, Said] | None = None
        self._numbers = 0

    def number(self) -> int:
        self._numbers += 1
        return self._numbers


class Remote:
    """The openai engine of one host. `done` gets each request with the reply that was taken, or that gives it back."""

    def __init__(self, host: Host, network: Network, shape: ServiceShape, done: Done) -> None:
        self.host, self.network, self.shape, self._done = host, network, shape, done
        self.service = Service()
        self._wires: dict[int, Wire] = {}
        self._calls: dict[int, ServiceCall] = {}
        self._came: list[Said] = []  # what has been taken

    def ask(self, request: SimRequest, code: str, service_s: float) -> None:
        call = self._calls[request.task] = ServiceCall(request, code, service_s)
        self._send(call, new=False)

    def cancel(self, task: int) -> None:
        call = self._calls.pop(task, None)
        if call is not None and call.wire is not None:
            self._close(call.wire)

    # ------------------------------------------------------------ the client

    def _send(self, call: ServiceCall, *, new: bool) -> None:
        if self._calls.get(call.request.task) is not call:
            return
        rule = self.service.take(new=new)
        wire = self._wires.setdefault(rule.number, Wire(rule))
        if rule.asked > 1:
            self._hit("connection: used again")
        wire.call, call.wire = call, wire
        request = call.request
        digest = f"{request.position:08x}{request.step:02x}" + "".join(f"{child:02x}" for child in request.path)
        call.asked = Asked(digest.ljust(24, "0"), f"{self.network.number():016x}")
        self.host.later(call.service_s, partial(self._replied, wire, call, call.asked))
        self.host.later(call.service_s + TIME_LIMIT_S, partial(self._too_late, call, call.asked))
        if wire.unread:
            self._read(wire, wire.unread.pop(0))

    def _too_late(self, call: ServiceCall, asked: Asked) -> None:
        if call.asked is asked and call.wire is not None:
            self._hit("service: no reply in time")
            self._broken(call)

    def _broken(self, call: ServiceCall) -> None:
        """The call failed: ask again, or give the request back."""
        if call.wire is not None:
            self._close(call.wire)
        call.tries += 1
        if call.tries < TRIES:
            self.host.later(0.05 * call.tries, partial(self._send, call, new=True))
        elif self._calls.pop(call.request.task, None) is call:
            self._done(call.request, Said((-1, (), -1), "retry", Reply()))

    def _close(self, wire: Wire) -> None:
        wire.closed = True
        self._wires.pop(wire.rule.number, None)
        if wire.call is not None:
            wire.call.wire = None
            wire.call = None

    def _arrive(self, wire: Wire, said: Said) -> None:
        if wire.closed:
            return
        if wire.call is None:
            self._hit("connection: unasked reply")
            wire.unread.append(said)
        else:
            self._read(wire, said)

    def _read(self, wire: Wire, said: Said) -> None:
        call = wire.call
        assert call is not None
        verdict = self.service.judge(wire.rule, call.asked, said.reply)
        wire.call, call.wire = None, None
        if not self.service.release(wire.rule, verdict):
            self._close(wire)
        if verdict.taken:
            self._came.append(said)
            if self._calls.pop(call.request.task, None) is call:
                self._done(call.request, said)
            return
        self._hit(f"reply: {verdict.why}")
        if verdict.at_once:
            self._send(call, new=True)
        else:
            self._broken(call)

    # ------------------------------------------------------------ the service, and what is on the way

    def _replied(self, wire: Wire, call: ServiceCall, asked: Asked) -> None:
        """The service answers the request on this connection, whichever request waits there now."""
        if wire.closed:
            return
        said = self._said(call, asked)
        shape, chance = self._faults(), self.network.rng.random
        if chance() < shape.earlier and (earlier := self._earlier()) is not None:
            self._hit("service: earlier reply")
            said = earlier
        delay_s = 0.0
        if chance() < shape.late:
            self._hit("service: late")
            delay_s = LATENESS_S * chance()
        if chance() < shape.dropped:
            self._hit("service: dropped")
            if wire.call is not None:
                self._broken(wire.call)
            self._close(wire)
            return
        if chance() < shape.swallowed:
            self._hit("service: no reply")
            return
        if chance() < shape.swapped:
            self._swap(wire, said)
            return
        self._later(delay_s, wire, said)
        if chance() < shape.twice:
            self._hit("service: reply twice")
            self._later(delay_s + self._lateness(), wire, said)
        if chance() < shape.asked_twice:
            self._hit("service: asked twice")
            self._later(delay_s + self._lateness(), wire, self._said(call, asked))
        if chance() < shape.stray:
            self._hit("service: stray")
            self._later(delay_s + self._lateness(), wire, Said((-1, (), -1), "refused", Reply(success=False)))

    def _said(self, call: ServiceCall, asked: Asked) -> Said:
        request, identity, number = call.request, self.shape.identity, self.network.number()
        value = (request.position, request.path, request.step)
        marked = identity == "mark" or (identity == "some" and self.network.rng.random() < 0.5)
        name = {"ids": f"chatcmpl-{number}", "one": "chatcmpl"}.get(identity, "") if not call.code else ""
        return Said(
            value,
            call.code,
            Reply(
                marks=(mark(asked.digest, asked.number),) if marked else (),
                id=name,
                content="yes" if self.shape.alike else repr(value),
                success=not call.code,
            ),
        )

    def _faults(self) -> Any:
        now, until_s = self.host.world.now, self.host.world.scenario.schedule.until_s
        return self.shape if now < until_s else ServiceShape(self.shape.identity, self.shape.alike)

    def _earlier(self) -> Said | None:
        """One that this engine has taken; without marks: where it knows that ids are unique."""
        known = [said for said in self._came if said.reply.marks or said.reply.id]
        if not known or (self.shape.identity == "ids" and len(known) <= SAME_ID_LIMIT):
            return None
        return self.network.rng.choice(known[-100:])

    def _swap(self, wire: Wire, said: Said) -> None:
        """Two replies, each to the other's connection; one that finds no other arrives as it should."""
        waiting, self.network.swapping = self.network.swapping, None
        if waiting is not None and waiting[0].is_alive_beside(self):
            self._hit("service: swapped")
            other, other_wire, other_said = waiting
            self._later(0.0, wire, other_said)
            other._later(0.0, other_wire, said)
            return
        mine = self.network.swapping = (self, wire, said)

        def give_up() -> None:
            if self.network.swapping is mine:
                self.network.swapping = None
                self._arrive(wire, said)

        self.host.later(SWAP_WAITS_S, give_up)

    def is_alive_beside(self, other: Remote) -> bool:
        """Hosts end with the coordinator that started them; the world does not."""
        return self.host.state != "dead" and self.host.coordinator is other.host.coordinator

    def _lateness(self) -> float:
        """At once, before the next request or after it, or much later."""
        return self.network.rng.choice((0.0, 0.002, 0.05, LATENESS_S)) * self.network.rng.random()

    def _later(self, delay_s: float, wire: Wire, said: Said) -> None:
        self.host.later(delay_s, partial(self._arrive, wire, said))

    def _hit(self, name: str) -> None:
        self.host.world.tally.hit(name)
