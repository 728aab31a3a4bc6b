"""The connections to the hosts: messages out, messages in, as events of the core. One link per replica and start."""

from __future__ import annotations

import selectors
import socket

from penstock.core import events as ev
from penstock.core.events import Event
from penstock.errors import DEAD_CODES
from penstock.protocol.channel import Channel
from penstock.protocol.messages import (
    PROTOCOL_VERSION,
    Answer,
    Answers,
    Asleep,
    Heartbeat,
    Hello,
    Load,
    LoadFailed,
    Loading,
    Ready,
    Request,
    Setup,
    ToCoordinator,
    ToHost,
    WireRequest,
    requests_message,
)
from penstock.protocol.values import escaped
from penstock.protocol.wire import WireError, coordinator_decoder, encode_requests

_CODES = frozenset({"", "retry", *DEAD_CODES})
_NO_LOAD = Load(executing=0, waiting=0, busy_s=0.0, fill_s=0.0, progress=0, turnaround_s=0.0, sent_at=0.0)


class Link:
    """One start of one replica, over one connection.

    load   the newest figures of its host
    stamp  of answers that came in this turn, to be echoed with what replaces them; else 0
    note   what it says it is doing, or why it can't be spoken to any more (`lost`)
    """

    def __init__(self, index: int, incarnation: int, connection: socket.socket, setup: Setup) -> None:
        self.index = index
        self.incarnation = incarnation
        self.load = _NO_LOAD
        self.stamp = 0.0
        self.ready_s: float | None = None  # on the run's clock
        self.kv_tokens = 0  # that it can hold, as its engine says
        self.can_sleep = False
        self.loads = 0  # how often it loaded its weights: once; waking up is none
        self.note = "starting"
        self.rows = 0
        self._setup = setup
        self._channel: Channel[ToCoordinator] = Channel(connection, coordinator_decoder())

    @property
    def connection(self) -> socket.socket:
        return self._channel.socket

    @property
    def lost(self) -> bool:
        return self._channel.closed

    def send(self, message: ToHost) -> bool:
        """Send, or keep what the connection does not take; True when everything is out."""
        self._channel.send(message)
        return self._channel.flush()

    def flush(self) -> bool:
        return self._channel.flush()

    def send_requests(self, requests: list[Request]) -> list[Answer]:
        """Send them, or keep what the connection does not take (`unsent`). Those that have no form on the wire are not
        sent: their failures are returned."""
        frames, refused = encode_requests(requests_message(requests, self.stamp))
        self._channel.put(frames)
        self._channel.flush()
        return [_refusal(request, reason) for request, reason in refused]

    @property
    def unsent(self) -> bool:
        return self._channel.pending

    def receive(self) -> list[ToCoordinator]:
        """Messages that have come. `lost` is true afterwards where the host is gone or speaks no sense."""
        try:
            return self._channel.receive()
        except WireError as error:
            self.note = f"broke the protocol: {error}"
            self._channel.close()
            return []

    def close(self) -> None:
        self._channel.close()

    def greet(self, hello: Hello, penstock: str) -> str:
        """Answer a Hello; the reason when this host can't be spoken to."""
        if hello.version != PROTOCOL_VERSION or hello.penstock != penstock:
            return (
                f"its interpreter {hello.python} has Penstock {hello.penstock} (protocol {hello.version}), this one "
                f"{penstock} (protocol {PROTOCOL_VERSION}); install the same version there"
            )
        self.note = "loading"
        self.send(self._setup)  # small, and the first: it always fits
        return ""


def _refusal(request: WireRequest, reason: str) -> Answer:
    what = "row" if isinstance(request.payload, dict) else "prompt"
    return Answer(request.id, request.attempt, "encode_error", escaped(f"the {what} can't be sent: {reason}"))


def refusals_event(link: Link, refused: list[Answer], batch: int) -> ev.AnswersArrived:
    """Requests that could not be sent have ended: as if their replica had answered so at once."""
    return _event(link, Answers(items=refused, load=link.load), batch)


def answers_event(link: Link, message: Answers, batch: int) -> ev.AnswersArrived:
    """The core's view of a message of the host."""
    link.load = message.load
    link.stamp = message.load.sent_at
    link.rows += len(message.items)
    return _event(link, message, batch)


def _event(link: Link, message: Answers, batch: int) -> ev.AnswersArrived:
    """Identities, codes and token counts."""
    items, load = message.items, message.load
    # The list of codes is closed: it is what dead rows are chosen by.
    codes = [answer.code if answer.code in _CODES else "engine_error" for answer in items]
    return ev.AnswersArrived(
        batch=batch,
        replica=link.index,
        incarnation=link.incarnation,
        tasks=[answer.id for answer in items],
        attempts=[answer.attempt for answer in items],
        codes=codes if any(codes) else None,
        tokens_in=[answer.tokens_in for answer in items],
        tokens_out=[_tokens_out(answer) for answer in items],
        executing=load.executing,
        waiting=load.waiting,
        turnaround_s=load.turnaround_s,
        progress=load.progress,
        returned=message.returned,
        sized=message.sized,
    )


def _tokens_out(answer: Answer) -> int:
    outputs = answer.outputs
    if len(outputs) == 1:
        return outputs[0].tokens_out
    return sum(output.tokens_out for output in outputs)


def other_event(link: Link, message: ToCoordinator, now: float) -> list[Event]:
    """Events of the messages that bring no answers."""
    if isinstance(message, Heartbeat):
        load = link.load = message.load
        return [
            ev.HeartbeatArrived(
                replica=link.index,
                incarnation=link.incarnation,
                executing=load.executing,
                waiting=load.waiting,
                progress=load.progress,
            )
        ]
    if isinstance(message, Ready):
        link.note = ""
        if link.ready_s is None:
            link.ready_s, link.loads = now, 1
        capacity = message.capacity
        link.kv_tokens, link.can_sleep = capacity.kv_tokens, capacity.can_sleep
        return [
            ev.ReplicaReady(
                replica=link.index,
                incarnation=link.incarnation,
                slots=capacity.slots,
                kv_tokens=capacity.kv_tokens,
                shared=capacity.shared,
            )
        ]
    if isinstance(message, LoadFailed):
        link.note = message.message
        return [
            ev.ReplicaLoadFailed(
                replica=link.index,
                incarnation=link.incarnation,
                reason=message.message,
                out_of_memory=message.code == "out_of_memory",
            )
        ]
    if isinstance(message, Asleep):
        link.note = "asleep"
        return [ev.ReplicaAsleep(replica=link.index, incarnation=link.incarnation)]
    if isinstance(message, Loading):
        link.note = message.message
    return []


def watch(selector: selectors.BaseSelector, link: Link, *, writing: bool) -> None:
    """Have the selector tell when the link can be read, and when it can be written if something is left to send."""
    events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
    try:
        if selector.get_key(link.connection).events != events:
            selector.modify(link.connection, events, link)
    except KeyError:
        selector.register(link.connection, events, link)
