"""What a call of a launched pool is given, checked before anything is sent: prompts, and how their results come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.errors import UsageError
from penstock.protocol.payloads import Message, Messages, Payload, TokenIds
from penstock.spec.fields import is_number
from penstock.spec.problems import shown
from penstock.spec.sampling import MAX_TOKENS

__all__ = ["Prompt", "check_errors", "check_timeout", "payloads_of"]

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]  # a prompt, its token ids, or messages of a chat

_EXPECTED = "a text, a list of token ids, or a list of messages {role, content}"
_UNORDERED = (str, bytes, bytearray, memoryview, Mapping, set, frozenset)  # iterable, and no list


def payloads_of(prompts: Iterable[Prompt]) -> list[Payload]:
    """One payload for each prompt. Raises UsageError, with the index of a prompt that is none."""
    if not isinstance(prompts, Iterable) or isinstance(prompts, _UNORDERED):
        raise UsageError(f"expected a list of prompts, got {shown(prompts)}; put a single one into a list")
    return [_payload(prompt, index) for index, prompt in enumerate(prompts)]


def check_errors(errors: str) -> None:
    if errors not in ("raise", "return"):
        raise UsageError(f"errors is {shown(errors)}; expected 'raise' or 'return'")


def check_timeout(timeout_s: float | None) -> None:
    if timeout_s is not None and not (is_number(timeout_s) and timeout_s > 0):
        got = shown(timeout_s)
        raise UsageError(f"timeout_s is {got}; it must be a number greater than 0 (seconds), or None for no limit")


def _payload(prompt: Any, index: int) -> Payload:
    if isinstance(prompt, str):
        return prompt
    items = list(prompt) if isinstance(prompt, Iterable) and not isinstance(prompt, _UNORDERED) else []
    if items and all(type(each) is int for each in items):
        wrong = next((each for each in items if not 0 <= each <= MAX_TOKENS), None)
        if wrong is None:
            return TokenIds(items)
        raise UsageError(f"prompt {index}: token ids are from 0 to {MAX_TOKENS:,}; one is {shown(wrong)}")
    if not items or not all(isinstance(each, Mapping) for each in items):
        raise UsageError(f"prompt {index}: expected {_EXPECTED}, got {shown(prompt)}")
    return Messages([_message(each, index, at) for at, each in enumerate(items)])


def _message(given: Mapping[str, Any], index: int, at: int) -> Message:
    if given.keys() != {"role", "content"}:
        expected = f"expected {_EXPECTED}"
        raise UsageError(f"prompt {index}: {expected}; message {at} has the keys {shown(sorted(map(str, given)))}")
    for key in ("role", "content"):
        if not isinstance(given[key], str):
            raise UsageError(f"prompt {index}: the {key} of message {at} must be a text, got {shown(given[key])}")
    return Message(given["role"], given["content"])
