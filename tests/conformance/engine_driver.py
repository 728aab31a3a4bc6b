"""Drives an engine without a host: load, submit, and the answers by request id."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import penstock
from penstock.engines.base import Engine
from penstock.protocol.messages import Answer, Capacity, EngineConfig, Request
from penstock.protocol.options import Sampling

DOCWRITER = str(Path(penstock.__file__).parent / "models" / "docwriter")
PATIENCE_S = 120.0

_SUBJECTS = ("Queue", "Path", "Socket", "HTTPResponseParser")
_VERBS = ("get", "set_default", "read", "close", "open_or_create")
_OBJECTS = ("value", "item_by_name", "line")
_ARGUMENTS = ("self", "name", "default")


def signatures(count: int) -> list[str]:
    """Prompts of different lengths, of the kind that docwriter was trained on."""
    found = [
        f"Write a one-line docstring for:\ndef {subject}.{verb}_{each}({', '.join(_ARGUMENTS[:arity])})"
        for subject in _SUBJECTS
        for verb in _VERBS
        for each in _OBJECTS
        for arity in (1, 2, 3)
    ]
    return found[:count]


class EngineDriver:
    """A loaded engine. A context manager: the engine is closed at its end."""

    def __init__(self, engine: Engine, config: EngineConfig) -> None:
        self.engine = engine
        self.notes: list[str] = []
        self.answered: list[Answer] = []
        self._changed = threading.Condition()
        self._next_id = 0
        self.capacity: Capacity = engine.load(config, self._emit, self.notes.append)

    def __enter__(self) -> EngineDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def _emit(self, answers: Sequence[Answer]) -> None:
        with self._changed:
            self.answered += answers
            self._changed.notify_all()

    def submit(
        self, payloads: Sequence[Any], sampling: Sampling | Sequence[Sampling] | None = None, seed: int | None = 0
    ) -> list[int]:
        each = list(sampling) if isinstance(sampling, Sequence) else [sampling] * len(payloads)
        ids = list(range(self._next_id, self._next_id + len(payloads)))
        self._next_id += len(payloads)
        self.engine.submit(
            [Request(payload, one, number, 1, seed) for number, payload, one in zip(ids, payloads, each, strict=True)]
        )
        return ids

    def wait(self, ids: Sequence[int]) -> list[Answer]:
        """The answers to these requests, in their order."""
        wanted = set(ids)
        with self._changed:
            came = self._changed.wait_for(lambda: wanted <= {each.id for each in self.answered}, PATIENCE_S)
            assert came, f"no answer to {sorted(wanted - {each.id for each in self.answered})[:10]}"
            by_id = {each.id: each for each in self.answered}
        return [by_id[number] for number in ids]

    def ask(
        self, payloads: Sequence[Any], sampling: Sampling | Sequence[Sampling] | None = None, seed: int | None = 0
    ) -> list[Answer]:
        return self.wait(self.submit(payloads, sampling, seed))


def texts(answers: Sequence[Answer]) -> list[str]:
    """The first output of each answer; an error message stands for a failure, so that a comparison shows it."""
    return [answer.outputs[0].text if not answer.code else f"{answer.code}: {answer.message}" for answer in answers]


def tokens(answers: Sequence[Answer]) -> list[list[int] | None]:
    return [answer.outputs[0].token_ids if not answer.code else None for answer in answers]
