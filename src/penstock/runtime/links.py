"""The connections to the hosts: messages out, messages in, as events of the core. One link per replica and start."""

from __future__ import annotations

import selectors
import socket
from typing import Any

from penstock.core import events as ev
from penstock.core.events import Event
from penstock.engines.messages import (
    PROTOCOL_VERSION,
    Abort,
    Answer,
    Answers,
    Heartbeat,
    Hello,
    Load,
    LoadFailed,
    Loading,
    Ready,
    Request,
    Requests,
    Sampling,
    Setup,
    TakeBack,
    ToHost,
)
from penstock.engines.wire import Decoder, WireError, coordinator_decoder, encode

_READ_BYTES = 1 << 20
_NO_LOAD = Load(executing=0, waiting=0, busy_s=0.0, fill_s=0.0, progress=0, turnaround_s=0.0, sent_at=0.0)


class Link:
    """One start of one replica. `load`: the newest figures of its host. `ready_s`: when it was ready, run's clock.

    state  starting | loading | ready | lost; note: what it says it is doing
    """

    def __init__(self, index: int, incarnation: int, connection: socket.socket, setup: Setup) -> None:
        self.index = index
        self.incarnation = incarnation
        self.connection = connection
        self.load = _NO_LOAD
        self.ready: Ready | None = None
        self.ready_s: float | None = None
        self.note = "starting"
        self.lost = False
        self.rows = 0
        self.stamp = 0.0  # of answers that came in this turn: echoed with what replaces them, and only then
        self._setup = setup
        self._decoder: Decoder[Any] = coordinator_decoder()
        self._unsent: list[memoryview] = []

    # ------------------------------------------------------------ out

    def send(self, message: ToHost) -> bool:
        """Send or keep for later; True when something is left to be sent. A closed connection is noticed by reading."""
        self._unsent.append(memoryview(encode(message)))
        return self.flush()

    def flush(self) -> bool:
        unsent = self._unsent
        while unsent:
            try:
                sent = self.connection.send(unsent[0])
            except BlockingIOError:
                return True
            except OSError:
                unsent.clear()
                return False
            if sent == len(unsent[0]):
                del unsent[0]
            else:
                unsent[0] = unsent[0][sent:]
        return False

    def send_requests(self, items: list[Request], samplings: list[Sampling]) -> bool:
        return self.send(Requests(items=items, samplings=samplings, echo=self.stamp))

    def take_back(self, tasks: list[int]) -> bool:
        return self.send(TakeBack(ids=tasks))

    def abort(self, tasks: list[int]) -> bool:
        return self.send(Abort(ids=tasks))

    # ------------------------------------------------------------ in

    def receive(self) -> list[Any] | None:
        """Messages that have come; None when the connection is gone or speaks no sense (`note` says which)."""
        chunks = []
        try:
            while True:
                data = self.connection.recv(_READ_BYTES)
                if not data:
                    self.lost = True
                    break
                chunks.append(data)
                if len(data) < _READ_BYTES // 4:
                    break
        except BlockingIOError:
            pass
        except OSError:
            self.lost = True
        try:
            found = [message for data in chunks for message in self._decoder.feed(data)]
        except WireError as error:
            self.note, self.lost = f"protocol error: {error}", True
            found = []
        return found if found or not self.lost else None

    def greet(self, hello: Hello, penstock: str) -> str:
        """Answer a Hello; the reason when this host can't be spoken to."""
        if hello.version != PROTOCOL_VERSION or hello.penstock != penstock:
            return (
                f"its interpreter {hello.python} has Penstock {hello.penstock} (protocol {hello.version}), this one "
                f"{penstock} (protocol {PROTOCOL_VERSION}); install the same version there"
            )
        self.note = "loading"
        self.send(self._setup)
        return ""


def answers_event(link: Link, message: Answers, batch: int) -> ev.AnswersArrived:
    """The core's view of a message: identities, codes and token counts."""
    items = message.items
    load = link.load = message.load
    link.stamp = load.sent_at
    link.rows += len(items)
    codes = [answer.code for answer in items]
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


def other_event(link: Link, message: Any, now: float) -> list[Event]:
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
        link.ready, link.ready_s, link.note = message, now, ""
        capacity = message.capacity
        return [
            ev.ReplicaReady(
                replica=link.index,
                incarnation=link.incarnation,
                slots=capacity.slots,
                kv_tokens=capacity.kv_tokens,
            )
        ]
    if isinstance(message, LoadFailed):
        link.note = message.message
        return [ev.ReplicaLoadFailed(replica=link.index, incarnation=link.incarnation, reason=message.message)]
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
