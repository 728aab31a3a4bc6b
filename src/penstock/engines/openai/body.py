"""Reading the body of a reply in bounded memory, whatever the service sends.

The codings are undone here and not by the HTTP client, piece by piece, so that a body which is small on the wire and
large behind it is noticed before it is there.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType

from penstock.engines.openai.failures import CallFailed, OutsizedReply
from penstock.protocol.options import Sampling

__all__ = [
    "ACCEPTED_CODINGS",
    "MAX_HELD_BYTES",
    "MAX_REFUSAL_BYTES",
    "MAX_REPLY_BYTES",
    "Body",
    "Held",
    "reply_limit_bytes",
]

MAX_REPLY_BYTES = 64 << 20
"""Of one reply, decoded."""
LEAST_REPLY_BYTES = 1 << 20
BYTES_PER_TOKEN = 1024
"""At most, on the average of a reply: long tokens, escaped, with their log probabilities."""
BYTES_PER_ASKED_BYTE = 64
"""Of what a service may repeat of the request."""
MAX_HELD_BYTES = 256 << 20
"""Of all replies that are being read."""
MAX_REFUSAL_BYTES = 1 << 20
"""Of a reply whose status says that it is no answer: what comes after is not read."""
ACCEPTED_CODINGS = "gzip, deflate"
_STEP_BYTES = 1 << 20  # that are unpacked at a time
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_RAW = -zlib.MAX_WBITS
_KNOWN_CODINGS = ("br", "zstd", "compress")


def reply_limit_bytes(asked_bytes: int, sampling: Sampling | None) -> int:
    """The most that the body of a reply may have, by what was asked for; MAX_REPLY_BYTES without max_tokens."""
    if sampling is None or sampling.max_tokens is None:
        return MAX_REPLY_BYTES
    tokens = sampling.max_tokens * sampling.n
    asked = LEAST_REPLY_BYTES + asked_bytes * BYTES_PER_ASKED_BYTE + tokens * BYTES_PER_TOKEN
    return min(MAX_REPLY_BYTES, asked)


class Held:
    """Bytes of all replies that are being read by one engine."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self.most_bytes = 0


class Body:
    """The body of one reply; use it in `with`, which gives its bytes back to `held`. wire_bytes: that came so far."""

    def __init__(self, held: Held, url: str) -> None:
        self.content = bytearray()
        self.wire_bytes = 0
        self._held, self._url, self._limit = held, url, 0
        self._coding = ""

    def __enter__(self) -> Body:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.total_bytes -= len(self.content)
        with suppress(BufferError):  # what was decoded may look into it
            self.content.clear()  # tracebacks may still hold a reference

    async def read(
        self, chunks: AsyncIterator[bytes], limit_bytes: int, coding: str = "", length: int | None = None
    ) -> bytearray:
        """All of it. `chunks` come as they were sent; `coding` and `length`: its Content-Encoding and Content-Length.

        Raises CallFailed: OutsizedReply above the limit, kind "busy" where all replies together are too large.
        """
        self._coding = _coding(coding, self._url)
        self._limit = limit_bytes
        if length is not None and length > limit_bytes:
            raise self._outsized()
        if not self._coding:
            async for chunk in chunks:
                self.wire_bytes += len(chunk)
                self._add(chunk)
            return self.content
        unpack = zlib.decompressobj(_GZIP_OR_ZLIB)
        begun = False
        async for chunk in chunks:
            self.wire_bytes += len(chunk)
            if not begun and chunk:
                begun = True
                if self._coding == "deflate" and chunk[0] & 0x0F != 8:
                    unpack = zlib.decompressobj(_RAW)  # what many servers send by that name
            self._unpack(unpack, chunk)
        if begun and not unpack.eof:
            raise CallFailed(f"{self._url}: the compressed body of the reply is truncated", "broken")
        return self.content

    def _unpack(self, unpack: zlib._Decompress, chunk: bytes) -> None:
        try:
            while not unpack.eof:
                piece = unpack.decompress(chunk, _STEP_BYTES)
                self._add(piece)
                chunk = unpack.unconsumed_tail
                if not chunk and len(piece) < _STEP_BYTES and not unpack.eof:
                    return
        except zlib.error as error:
            raise CallFailed(f"{self._url}: the reply's body is not valid {self._coding}", "broken") from error
        if chunk or unpack.unused_data:
            raise CallFailed(f"{self._url}: the compressed body of the reply has trailing data", "broken")

    def _add(self, piece: bytes) -> None:
        if len(self.content) + len(piece) > self._limit:
            raise self._outsized()
        if self._held.total_bytes + len(piece) > MAX_HELD_BYTES:
            raise CallFailed(
                f"{self._url}: the replies being read have in total more than {MAX_HELD_BYTES >> 20} MiB", "busy"
            )
        self.content += piece
        self._held.total_bytes += len(piece)
        self._held.most_bytes = max(self._held.most_bytes, self._held.total_bytes)

    def _outsized(self) -> OutsizedReply:
        return OutsizedReply(f"{self._url}: the reply's body is over {self._limit / (1 << 20):.4g} MiB")


def _coding(name: str, url: str) -> str:
    name = name.strip().lower()
    if name in ("", "identity"):
        return ""
    if name in ("gzip", "x-gzip", "deflate"):
        return name.removeprefix("x-")
    shown = name if name in _KNOWN_CODINGS else "unknown"
    raise CallFailed(f"{url}: the reply's Content-Encoding is {shown}; expected {ACCEPTED_CODINGS}", "broken")
