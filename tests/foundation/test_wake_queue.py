"""The queue between threads: nothing is lost, and a reader that waits is always woken."""

from __future__ import annotations

import os
import select
import threading

import pytest

from penstock.protocol.wake_queue import WakeQueue


def readable(queue: WakeQueue[int]) -> bool:
    return bool(select.select([queue.fileno()], [], [], 0)[0])


def test_it_is_readable_while_it_holds_something() -> None:
    queue: WakeQueue[int] = WakeQueue()
    assert not readable(queue) and not queue
    queue.put(1)
    queue.put_all([2, 3])
    assert readable(queue) and queue
    assert queue.take() == [1, 2, 3] and queue.take() == []
    assert not readable(queue)
    queue.close()


def test_what_its_reader_puts_in_wakes_nobody_and_a_signal_does() -> None:
    queue: WakeQueue[int] = WakeQueue()
    queue.own()
    queue.put(1)
    assert not readable(queue) and queue.take() == [1]
    queue.wake()
    assert readable(queue) and queue.take() == [] and not readable(queue)
    queue.close()


def test_an_item_that_comes_while_the_queue_is_read_wakes_the_next_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake-up must not be swallowed: each interleaving ends with an item taken, or a queue that is readable."""
    queue: WakeQueue[int] = WakeQueue()
    queue.put(0)
    read = os.eventfd_read

    def meanwhile(descriptor: int) -> int:
        writer = threading.Thread(target=queue.put, args=(1,))
        writer.start()
        writer.join(0.02)  # it may have to wait until the reading is over
        found = read(descriptor)
        monkeypatch.setattr(os, "eventfd_read", read)
        return found

    monkeypatch.setattr(os, "eventfd_read", meanwhile)
    seen = queue.take()
    for number in (2, 3):
        writer = threading.Thread(target=queue.put, args=(number,))
        writer.start()
        writer.join()
        assert readable(queue), f"item {number} woke nobody"
        seen += queue.take()
    assert sorted(seen) == [0, 1, 2, 3]
    queue.close()


def test_many_writers_lose_nothing() -> None:
    queue: WakeQueue[int] = WakeQueue()
    writers = [
        threading.Thread(target=lambda base=base: [queue.put(base + number) for number in range(2_000)])
        for base in range(0, 8_000, 2_000)
    ]
    for writer in writers:
        writer.start()
    seen: list[int] = []
    while len(seen) < 8_000:
        assert select.select([queue.fileno()], [], [], 5)[0], f"{8_000 - len(seen)} items wake nobody"
        seen += queue.take()
    assert sorted(seen) == list(range(8_000))
    queue.close()


def test_a_closed_queue_touches_no_descriptor() -> None:
    queue: WakeQueue[int] = WakeQueue()
    queue.put(1)
    queue.close()
    queue.close()
    read, write = os.pipe()  # one of them has the number that the queue had
    queue.wake()
    queue.put(2)
    assert queue.take() == [1, 2]
    assert not select.select([read], [], [], 0)[0]
    os.close(read)
    os.close(write)
