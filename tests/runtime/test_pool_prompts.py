"""What a call of a launched pool is given: refused before anything is sent, with what was expected."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import UsageError
from penstock.protocol.payloads import Message, Messages, TokenIds
from penstock.runtime.pool.prompts import check_errors, check_timeout, payloads_of


def test_the_three_kinds_of_prompts() -> None:
    chat = [{"role": "user", "content": "hi"}]
    found = payloads_of(iter(["a", [1, 2], (0,), chat]))
    assert found == ["a", TokenIds([1, 2]), TokenIds([0]), Messages([Message("user", "hi")])]


@pytest.mark.parametrize("prompts", [None, 5, "a", b"a", {"a": 1}, {"a"}], ids=repr)
def test_what_is_no_list_of_prompts(prompts: Any) -> None:
    with pytest.raises(UsageError, match=r"expected a list of prompts, got .*; put a single one into a list"):
        payloads_of(prompts)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (None, "expected a text, .* got nothing"),
        (5, "expected a text, .* got 5"),
        (b"ab", "expected a text, .* got b'ab'"),
        ([], "expected a text"),
        ([True], "expected a text"),
        ([1.0], "expected a text"),
        ([1, -2], "token ids are from 0 to 2,147,483,647; one is -2"),
        ([1 << 70], "token ids are from 0"),
        ([{"role": "user"}], "message 0 has the keys .'role'."),
        ([{"role": "user", "content": "a", "name": "b"}], "message 0 has the keys .'content', 'name', 'role'."),
        ([{"role": "user", "content": None}], "the content of message 0 must be a text, got nothing"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "the content of message 0 must be a text"),
        ([{"role": 1, "content": "a"}], "the role of message 0 must be a text, got 1"),
    ],
    ids=repr,
)
def test_what_is_no_prompt(prompt: Any, says: str) -> None:
    with pytest.raises(UsageError, match=f"prompt 1: .*{says}"):
        payloads_of(["fine", prompt])


@pytest.mark.parametrize("timeout_s", [0, -1, True, "5", float("nan"), float("inf"), 10**400], ids=str)
def test_a_timeout_is_seconds(timeout_s: Any) -> None:
    with pytest.raises(UsageError, match=r"timeout_s is .*; it must be a number greater than 0"):
        check_timeout(timeout_s)
    check_timeout(None)
    check_timeout(0.5)


@pytest.mark.parametrize("errors", ["ignore", None, True])
def test_errors_are_raised_or_returned(errors: Any) -> None:
    with pytest.raises(UsageError, match=r"errors is .*; expected 'raise' or 'return'"):
        check_errors(errors)
