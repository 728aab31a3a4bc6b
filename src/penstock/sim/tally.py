"""The 'sometimes' ledger: how often each fault struck and each path of recovery was taken.

A checker that finds nothing proves little if what it watches never happened, so the tests ask that each of `SOMETIMES`
did.
"""

from __future__ import annotations

__all__ = ["SOMETIMES", "Coverage"]

SOMETIMES = (
    "abort",
    "answer: aborted request",
    "answer: late",
    "answer: lost",
    "answer: other attempt",
    "answer: other incarnation",
    "answer: other replica",
    "answer: reordered",
    "answer: retry",
    "answer: twice",
    "answer: while killed",
    "asleep",
    "circuit: tried again",
    "commit: full window",
    "commit: rejected rows",
    "commit: unpublished head",
    "commit: cut off, durable",
    "commit: cut off, lost",
    "connection: unasked reply",
    "connection: used again",
    "crash",
    "cut",
    "dead: bad_json",
    "dead: encode_error",
    "dead: engine_crash",
    "dead: engine_error",
    "dead: expired",
    "dead: refused",
    "dead: replica_lost",
    "dead: template_missing_field",
    "ended: done",
    "ended: failed",
    "ended: stopped",
    "ended: too_many_dead",
    "expanded",
    "filtered",
    "joined",
    "device failed",
    "family of a phase before",
    "first part",
    "hang",
    "kill of a replica",
    "late tick",
    "life ended: limit",
    "life ended: source restored",
    "limit below what has ended",
    "life ended: killed",
    "life ended: killed in a turn",
    "load: crash",
    "load: failed",
    "load: hang",
    "load: out of memory",
    "oom",
    "operator: add",
    "operator: drain",
    "operator: pause",
    "operator: remove",
    "operator: slots",
    "phase begun",
    "pool down",
    "recovered: circuit",
    "recovered: hang",
    "recovered: ladder",
    "recovered: requeued",
    "recovered: stale_answer",
    "recovered: slow",
    "recovered: suspect",
    "reply: other",
    "reply: repeated",
    "reply: unproven",
    "restart",
    "result of a life before",
    "replica removed",
    "resumed with rows above the watermark",
    "service: asked twice",
    "service: dropped",
    "service: earlier reply",
    "service: late",
    "service: no reply",
    "service: no reply in time",
    "service: reply twice",
    "service: stray",
    "service: swapped",
    "slow",
    "source refused: changed",
    "source refused: changed while it was read",
    "source refused: shorter",
    "source: one file twice",
    "source: rewrite",
    "source: shorten",
    "source: swap",
    "stall",
    "slow commit",
    "suspect answered",
    "suspects: on the last ready replica",
    "take-back: empty",
    "take-back: some",
    "undisturbed",
    "woken",
)


class Coverage:
    def __init__(self) -> None:
        self.hits: dict[str, int] = {}

    def hit(self, name: str, count: int = 1) -> None:
        if count:
            self.hits[name] = self.hits.get(name, 0) + count

    def add(self, other: Coverage) -> None:
        for name, count in other.hits.items():
            self.hit(name, count)

    def never(self) -> list[str]:
        """Which of `SOMETIMES` did not happen."""
        return [name for name in SOMETIMES if name not in self.hits]

    def lines(self) -> list[str]:
        return [f"{count:8d}  {name}" for name, count in sorted(self.hits.items())]
