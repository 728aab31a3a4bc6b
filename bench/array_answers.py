"""Vectors as buffers against vectors as lists of numbers: worker, wire, rows in memory, and the table of a commit.

Each form runs in a process of its own: what a function returned is encoded as answers of 64 rows, decoded as the
coordinator does, held as rows, and made a table. CPU is of worker and coordinator together; memory is what the
decoded rows add to the coordinator's resident set.
"""

from __future__ import annotations

import argparse
import os
import time
from array import array
from multiprocessing import get_context
from typing import Any, cast

from common import Figure, main
from penstock.data.columns import TableBuilder
from penstock.protocol.messages import Answer, Answers, Load
from penstock.protocol.values import to_wire
from penstock.protocol.wire import coordinator_decoder, encode

LOAD = Load(0, 0, 0.0, 0.0, 0, 0.0, 0.0)
ROWS_PER_MESSAGE = 64
WIDTH = 384


def resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one_form(form: str, rows: int) -> tuple[float, int]:
    """(CPU seconds, bytes of memory)."""
    vector = memoryview(array("f", (1.0 / (1 + at) for at in range(WIDTH))))
    TableBuilder().build([{"vector": [0.5]}])  # imports are nobody's cost
    before = resident_bytes()
    began_s = time.process_time()
    decoder = coordinator_decoder()
    held: list[dict[str, Any]] = []
    for first in range(0, rows, ROWS_PER_MESSAGE):
        items = []
        for number in range(first, min(rows, first + ROWS_PER_MESSAGE)):
            value = vector.tolist() if form == "lists" else vector
            items.append(Answer(number, 1, value=to_wire({"vector": value})))
        (message,) = decoder.feed(bytes(encode(Answers(items, LOAD))))
        held += [answer.value for answer in cast(Answers, message).items]
    grown = resident_bytes() - before
    table, rejected = TableBuilder().build(held)
    assert table.num_rows == rows and not rejected
    return time.process_time() - began_s, grown


def measure(arguments: argparse.Namespace) -> list[Figure]:
    found = {}
    for form in ("lists", "arrays"):
        with get_context("spawn").Pool(1) as pool:
            found[form] = pool.apply(one_form, (form, arguments.rows))
    (lists_s, lists_bytes), (arrays_s, arrays_bytes) = found["lists"], found["arrays"]
    cpu, memory = lists_s / arrays_s, lists_bytes / arrays_bytes
    each = f"{lists_s / arguments.rows * 1e6:.1f} -> {arrays_s / arguments.rows * 1e6:.1f} us"
    held = f"{lists_bytes / arguments.rows:,.0f} -> {arrays_bytes / arguments.rows:,.0f} bytes"
    return [
        Figure("array answers", f"CPU a row of {WIDTH} float32, lists -> arrays", each),
        Figure("array answers", "CPU, lists / arrays", f"{cpu:.1f}", ">= 4", cpu >= 4),
        Figure("array answers", "memory a row, lists -> arrays", held),
        Figure("array answers", "memory, lists / arrays", f"{memory:.1f}", ">= 4", memory >= 4),
    ]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=20_000)
