"""One end of a connection: messages out through a buffer that never blocks, messages in as they are complete."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from penstock.protocol.messages import ToCoordinator, ToHost
from penstock.protocol.wire import Decoder, encode

__all__ = ["Channel"]

_READ_BYTES = 1 << 18  # about the largest that a Unix socket hands over at once
_READS_PER_CALL = 8  # so that a flood from one side can't keep the caller from its other duties

Message = TypeVar("Message")


class Channel(Generic[Message]):
    """Wraps a non-blocking stream socket.

    send      queues a message, `put` frames of `wire`; they return at once
    flush     writes what the socket takes; True when nothing is left
    receive   the messages that have come; `closed` is True once the other side is gone
    Neither raises for a peer that has gone: `closed` says so. WireError for bytes that are no message.
    """

    def __init__(self, connection: socket.socket, decoder: Decoder[Message]) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.closed = False
        self._decoder = decoder
        self._unsent: deque[memoryview] = deque()

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def pending(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._unsent)

    @property
    def unsent_bytes(self) -> int:
        return sum(len(view) for view in self._unsent)

    def send(self, message: ToHost | ToCoordinator) -> None:
        self.put([encode(message)])

    def put(self, frames: Iterable[bytearray]) -> None:
        self._unsent.extend(map(memoryview, frames))

    def flush(self) -> bool:
        while self._unsent and not self.closed:
            view = self._unsent[0]
            try:
                sent = self.socket.send(view)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self.closed = True
                break
            if sent == len(view):
                self._unsent.popleft()
            else:
                self._unsent[0] = view[sent:]
        if self.closed:
            self._unsent.clear()
        return True

    def receive(self) -> list[Message]:
        found: list[Message] = []
        for _ in range(_READS_PER_CALL):
            data = self._read()
            if not data:
                break
            found.extend(self._decoder.feed(data))
            if len(data) < _READ_BYTES and not self._decoder.kept_bytes:
                break
        return found

    def _read(self) -> bytes | Any:
        try:
            data = self.socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            data = b""
        if not data:
            self.closed = True
        return data

    def close(self) -> None:
        self.closed = True
        self._unsent.clear()
        self.socket.close()
