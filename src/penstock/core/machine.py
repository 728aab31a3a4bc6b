"""What both machines share: numbered instructions, a table of handlers, and a bounded story of what happened."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import astuple

from penstock.core.events import Event, Instruction
from penstock.errors import InvariantError

Perform = Callable[[Instruction], Iterable[Event]]

STORY_LENGTH = 400  # events and instructions kept for an error's story
STORY_NUMBERS = 20_000  # tasks, rows and the like that they may hold together; a busy run's lists are long


class StateMachine:
    """Base of Flow and Dispatch: `handle(events, now) -> instructions`.

    A subclass fills `_handlers` (event type -> method) and emits with `self.emit`. `_settle` runs once after the
    events of one call, so that decisions are taken on the whole of what is known.
    """

    name = "machine"

    def __init__(self) -> None:
        self._out: list[Instruction] = []
        self._next_id = 1
        self.now = 0.0  # the time of the events that are being handled
        self._story: deque[tuple[float, Event | Instruction, int]] = deque()
        self._story_numbers = 0
        self._handlers: dict[type[Event], Callable[[Any], None]] = {}

    def handle(self, events: Sequence[Event], now: float) -> list[Instruction]:
        """Take what happened, return what is to be done. `now`: seconds on a clock that never goes back."""
        self.now = now
        handlers = self._handlers
        for event in events:
            self._tell(event)
            handler = handlers.get(type(event))
            if handler is None:
                raise self.broken(f"{self.name} has no rule for {type(event).__name__}")
            handler(event)
        self._settle()
        out, self._out = self._out, []
        return out

    def handles(self, event: Event) -> bool:
        return type(event) in self._handlers

    def turn(self, events: Iterable[Event], now: float, perform: Perform) -> None:
        """`perform` does what an instruction says and returns the events that it brought at once; these are handled
        until nothing is left to say."""
        waiting = list(events)
        while waiting:
            instructions = self.handle(waiting, now)
            waiting = [event for instruction in instructions for event in perform(instruction)]

    def _settle(self) -> None:
        raise NotImplementedError

    def emit(self, instruction: Instruction) -> int:
        instruction.id = self._next_id
        self._next_id += 1
        self._tell(instruction)
        self._out.append(instruction)
        return instruction.id

    def _tell(self, item: Event | Instruction) -> None:
        """Remember `item`, and forget the oldest beyond the limits."""
        story, numbers = self._story, _numbers_in(item)
        story.append((self.now, item, numbers))
        self._story_numbers += numbers
        while len(story) > STORY_LENGTH or (self._story_numbers > STORY_NUMBERS and len(story) > 1):
            self._story_numbers -= story.popleft()[2]

    def story(self, number: int | None = None) -> str:
        """The last things that happened, one a line; with `number`, those that name this task, row or replica."""
        lines = []
        for when, item, _ in self._story:
            if number is None or _names(item, number):
                text = repr(item)
                lines.append(f"{when:12.4f}  {text if len(text) <= 400 else text[:397] + '...'}")
        return "\n".join(lines)

    def broken(self, message: str, number: int | None = None) -> InvariantError:
        """The error for an invariant that does not hold, with the story: of one task, row or replica, or the whole."""
        return InvariantError(f"{message}\nThe story ({self.name}):\n{self.story(number)}")


def _numbers_in(item: Event | Instruction) -> int:
    """How long the lists of an event or instruction are, all together."""
    return 1 + sum([len(value) for value in astuple(item) if type(value) is list])


def _names(item: Event | Instruction, number: int) -> bool:
    return any(value == number or (isinstance(value, list) and number in value) for value in astuple(item))
