"""Functions that workers import in tests."""

from __future__ import annotations

import datetime as dt
import hashlib
import sys
import time
from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]


def double(row: Row) -> Row:
    return {"y": row["x"] * 2}


def echo(row: Row) -> Row:
    return row


def tomorrow(row: Row) -> Row:
    return {"when": row["when"] + dt.timedelta(days=1)}


def is_even(row: Row) -> bool:
    return bool(row["x"] % 2 == 0)


def count(row: Row) -> Iterator[Row]:
    for number in range(row["x"]):
        yield {"n": number}


def fail(row: Row) -> Row:
    return {"y": 1 // row["x"]}


def leave(row: Row) -> Row:
    sys.exit(3)


def give_a_set(row: Row) -> Row:
    return {"y": {1, 2}}


def sleep(row: Row) -> Row:
    time.sleep(row["s"])
    return row


def swallow(row: Row) -> Row:
    """Goes on for ever, whatever Exception it meets."""
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            continue


def calculate(row: Row) -> Row:
    """Seconds of C code that looks at no signal and lets other threads run."""
    return {"y": hashlib.pbkdf2_hmac("sha512", b"x", b"y", row["rounds"]).hex()}


async def later(row: Row) -> Row:
    return row


not_a_function = 5
