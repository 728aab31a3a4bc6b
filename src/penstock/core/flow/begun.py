"""Tasks that have begun in this turn, by step: given out together at its end, so that few instructions carry many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class Begun:
    """of_step: tasks, and the positions of their source rows, which rank them."""

    def __init__(self, steps: int) -> None:
        self.of_step: list[tuple[list[int], list[int]]] = [([], []) for _ in range(steps)]

    def take(self) -> Iterator[tuple[int, list[int], list[int]]]:
        """(step, tasks, orders) of each step that has any; they have been given out then."""
        for step, (tasks, orders) in enumerate(self.of_step):
            if tasks:
                # New lists, as the old ones belong to the instruction from here on.
                self.of_step[step] = ([], [])
                yield step, tasks, orders

    def withdraw(self, cancelled: Sequence[int]) -> None:
        """What was cancelled in the turn in which it began is not given out: its row is not there any more."""
        for task in cancelled:
            tasks, orders = self.of_step[task % len(self.of_step)]
            # A search, but only through what began in this turn, and only where two branches met in it.
            if task in tasks:
                at = tasks.index(task)
                del tasks[at], orders[at]

    def any(self) -> bool:
        return any(tasks for tasks, _ in self.of_step)
