"""The loop of a host: the socket to the coordinator, the queue, the engine, the figures.

It runs in a thread of its own, since the main thread belongs to the engine (see `host`), and turns like this:

    wait for bytes, for answers of the engine, or until a heartbeat is due
    -> read messages -> take answers -> give the engine what it has room for -> tell the coordinator

Everything that is ready at a turn goes out in one message, at once; no timer holds an answer back. An engine that
answers within `submit` is fed again and again in one turn, for a few milliseconds at most.

Life: greeting -> loading -> serving -> ended. Requests that come before the engine is ready wait.
"""

from __future__ import annotations

import select
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue

from penstock.engine_info import engines
from penstock.engines.base import Engine, MainThreadWorker, PromptCounter
from penstock.faults import fault
from penstock.host.acceptance import Acceptance
from penstock.host.figures import Figures
from penstock.host.log import print_traceback
from penstock.host.parts import Streams
from penstock.host.queue import RequestQueue
from penstock.protocol.channel import Channel
from penstock.protocol.messages import (
    Abort,
    Answer,
    AnswerPart,
    Answers,
    Asleep,
    Capacity,
    Close,
    Heartbeat,
    Hello,
    Load,
    LoadFailed,
    Loading,
    Ready,
    Requests,
    Setup,
    Sleep,
    TakeBack,
    ToHost,
    Wake,
)
from penstock.protocol.values import escaped
from penstock.protocol.wake_queue import WakeQueue
from penstock.protocol.wire import WireError, encode_answers

__all__ = ["EXIT_CLOSED", "EXIT_ENGINE_FAILED", "EXIT_LOAD_FAILED", "HostLoop"]

EXIT_CLOSED = 0
EXIT_ENGINE_FAILED = 1
EXIT_LOAD_FAILED = 3

HEARTBEAT_S = 0.5  # the coordinator expects one a second
TURN_S = 0.005  # of answering within `submit` before the loop looks at its socket again
_MESSAGE_CHARACTERS = 10_000  # of a failure message that is too long
SHUTDOWN_TIMEOUT_S = 2.0  # for the last words to reach a coordinator that is slow to read


class HostLoop(threading.Thread):
    """Owns the connection. `orders` yields what the main thread is to do: the Setup, then Sleep and Wake; None at the
    end, also when the coordinator went away before it sent a Setup.

    `ended` is set once there is nothing more to do; `exit_status` and `orphaned` (the coordinator is gone) are final
    then.
    """

    def __init__(self, channel: Channel[ToHost], hello: Hello) -> None:
        super().__init__(name="penstock-host", daemon=True)
        self.orders: SimpleQueue[Setup | Sleep | Wake | None] = SimpleQueue()
        self.ended = threading.Event()
        self.exit_status = EXIT_CLOSED
        self.orphaned = False
        self._channel = channel
        self._hello = hello
        self._queue = RequestQueue()
        self._answers: WakeQueue[Answer | AnswerPart] = WakeQueue()
        self._news: WakeQueue[Loading | LoadFailed | Asleep | tuple[Ready, Engine]] = WakeQueue()
        self._figures = Figures()
        self._engine: Engine | None = None
        self._worker: MainThreadWorker | None = None
        self._out: list[Answer] = []
        self._sizes: deque[tuple[int, int]] = deque()  # (id, prompt tokens), from whichever thread tokenises
        self._streams = Streams()
        self._version = ""
        self._hungry = False  # a turn ended with more to feed
        self._progress = 0
        self._beat_at_s = 0.0
        self._poll = select.poll()

    # ------------------------------------------------------------ called by the engine and the main thread

    def emit(self, answers: Sequence[Answer | AnswerPart]) -> None:
        self._answers.put_all(answers)

    def note(self, message: str) -> None:
        self._news.put(Loading(escaped(message)))

    def ready(self, engine: Engine, capacity: Capacity, load_s: float) -> None:
        self._news.put((Ready(capacity, load_s), engine))

    def asleep(self) -> None:
        self._news.put(Asleep())

    def load_failed(self, failure: LoadFailed) -> None:
        self._news.put(LoadFailed(failure.code, escaped(failure.message)))

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        try:
            self._answers.own()
            self._news.own()
            self._channel.send(self._hello)
            fault("host.started")
            for source in (self._answers, self._news):
                self._poll.register(source.fileno(), select.POLLIN)
            while not self.ended.is_set():
                self._turn()
        except Exception as error:
            self._fail(error)
        finally:
            self.orders.put(None)

    def _turn(self) -> None:
        self._channel.flush()
        self._wait()
        now_s = time.monotonic()
        for message in self._channel.receive():
            self._handle(message, now_s)
        self._take_news()
        if self._engine is not None:
            self._feed(self._engine)
        self._report()
        if self._channel.closed and not self.ended.is_set():
            self.orphaned = True
            self._end(EXIT_CLOSED)

    def _wait(self) -> None:
        events = select.POLLIN | select.POLLOUT if self._channel.pending else select.POLLIN
        self._poll.register(self._channel.fileno(), events)
        if self._hungry or self._answers or self._news:
            self._poll.poll(0)
        else:
            self._poll.poll(max(0.0, self._beat_at_s - time.monotonic()) * 1000 + 1)

    def _handle(self, message: ToHost, now_s: float) -> None:
        match message:
            case Requests():
                fault("host.requests_received")
                self._figures.turnaround.observe(message.echo, now_s)
                self._out += self._queue.add(message, now_s)
            case TakeBack():
                fault("host.takeback_received")
                if self._engine is not None:
                    self._feed(self._engine)  # what came just before fills free slots first
                self._send_answers(self._take_back(message.ids))
            case Abort():
                inside = self._queue.abort(message.ids)
                if inside and self._engine is not None:
                    self._engine.abort(inside)
            case Setup():
                fault("host.setup_received")
                self._figures = Figures(message.config.devices, len(message.config.cores))
                info = engines().get(message.config.engine)
                if info is not None:  # else loading it fails, and says so
                    self._queue.refuse_by(Acceptance(info))
                self.orders.put(message)
            case Sleep() | Wake():
                self.orders.put(message)
            case Close():
                self._end(EXIT_CLOSED)

    def _take_back(self, ids: list[int]) -> list[int]:
        returned = self._queue.take_back(ids)
        if self._worker is not None:
            unbegun = self._worker.give_back(self._queue.inside(ids))
            self._queue.withdraw(unbegun)
            returned += unbegun
        return returned

    def _take_news(self) -> None:
        for item in self._news.take():
            if isinstance(item, LoadFailed):
                self._channel.send(item)
                self._part()
                self._end(EXIT_LOAD_FAILED)
            elif isinstance(item, Loading | Asleep):
                self._channel.send(item)
            else:
                self._begin(*item)

    def _begin(self, ready: Ready, engine: Engine) -> None:
        self._version = ready.capacity.version
        if self._engine is engine:  # awake again: its figures continue
            self._channel.send(ready)
            return
        self._engine = engine
        self._worker = engine if isinstance(engine, MainThreadWorker) else None
        self._queue.open(ready.capacity)
        if ready.capacity.kv_tokens and isinstance(engine, PromptCounter):  # else nobody counts tokens
            engine.report_sizes(lambda number, tokens: self._sizes.append((number, tokens)))
        self._figures.start(ready.capacity.slots, time.monotonic())
        self._channel.send(ready)
        fault("host.ready_sent")

    def _feed(self, engine: Engine) -> None:
        """Take the engine's answers and give it what it has room for, until neither changes anything."""
        queue, occupancy = self._queue, self._figures.occupancy
        until_s = 0.0
        self._hungry = False
        while not self.ended.is_set():
            if self._answers:
                self._settle()
            batch = queue.next_batch(self._worker.ahead() if self._worker is not None else 0)
            now_s = time.monotonic()
            occupancy.change(len(queue.executing), now_s)
            if not batch:
                break
            engine.submit(batch)
            if not self._answers:
                break
            until_s = until_s or now_s + TURN_S
            if now_s > until_s:
                self._hungry = True
                break

    def _settle(self) -> None:
        known = self._queue.unmatched_answers
        self._out += self._taken()
        if self._queue.unmatched_answers > known:
            print(
                f"penstock: {self._queue.unmatched_answers} answers so far to requests that are not executing",
                file=sys.stderr,
            )

    def _taken(self) -> list[Answer]:
        """What the engine has answered; parts go out ahead of it."""
        answers, parts = self._streams.sort(self._answers.take(), self._queue.executing)
        self._channel.put(parts)
        wanted = self._queue.settle(answers)
        if self._version:
            for answer in wanted:
                answer.version = answer.version or self._version
        return wanted

    def _report(self) -> None:
        if self._out or self._sizes:
            self._send_answers(None)
        elif time.monotonic() >= self._beat_at_s:
            self._channel.send(Heartbeat(self._load()))

    def _send_answers(self, returned: list[int] | None) -> None:
        out, self._out = self._out, []
        try:
            load = self._load()
        except Exception:
            self._out = out  # the engine is dead; what it answered before still goes out
            raise
        self._put(Answers(out, load, returned, self._take_sizes()))
        fault("host.answers_sent")

    def _take_sizes(self) -> list[tuple[int, int]]:
        """True lengths of prompts, for the coordinator's token credit as for the queue's."""
        sized = [self._sizes.popleft() for _ in range(len(self._sizes))]
        for number, tokens in sized:
            self._queue.counted(number, tokens)
        return sized

    def _put(self, answers: Answers) -> None:
        self._channel.put(encode_answers(answers, self._instead))

    def _instead(self, answer: Answer, reason: str) -> Answer:
        """The failure of an answer that can't be sent: the row's, not the engine's."""
        if answer.code:
            return Answer(answer.id, answer.attempt, answer.code, escaped(answer.message)[:_MESSAGE_CHARACTERS])
        code = "engine_error" if self._worker is None else "function_result"
        return Answer(answer.id, answer.attempt, code, escaped(f"the answer can't be sent: {reason}"))

    def _load(self) -> Load:
        now_s = time.monotonic()
        self._beat_at_s = now_s + HEARTBEAT_S
        if self._engine is not None:
            self._progress = self._engine.progress()
        queue = self._queue
        return self._figures.load(len(queue.executing), len(queue.waiting), self._progress, now_s)

    # ------------------------------------------------------------ the end

    def _end(self, status: int) -> None:
        if not self.orphaned:
            self._part()
        self.exit_status = status
        self.ended.set()
        self.orders.put(None)

    def _part(self) -> None:
        """Give what is still unsent a bounded time to leave."""
        until_s = time.monotonic() + SHUTDOWN_TIMEOUT_S
        writable = select.poll()
        writable.register(self._channel.fileno(), select.POLLOUT)
        while not self._channel.flush() and time.monotonic() < until_s:
            writable.poll(50)

    def _fail(self, error: Exception) -> None:
        """The engine, or the protocol, is beyond repair: say so, send what was answered, end."""
        if isinstance(error, WireError):
            print(f"penstock host: {error}", file=sys.stderr, flush=True)
        else:
            print_traceback(error)
        self._engine = None
        out = self._out + self._taken()
        self._out = []
        if out and not self._channel.closed:
            self._put(Answers(out, self._load()))
        self._end(EXIT_ENGINE_FAILED)
