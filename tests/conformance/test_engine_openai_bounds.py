"""Replies without end, or larger than they look: bounded memory, and an error that says the limit."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from engine_driver import EngineDriver, texts
from openai_service import Service, good

from penstock.engines.openai import body as openai_body
from penstock.engines.openai.body import MAX_HELD_BYTES, MAX_REFUSAL_BYTES, Body, Held, reply_limit_bytes
from penstock.engines.openai.engine import OpenAIEngine
from penstock.engines.openai.failures import CallFailed, OutsizedReply
from penstock.engines.openai.retry import Backoff
from penstock.protocol.messages import Answer, EngineConfig
from penstock.protocol.options import Sampling
from penstock.testing.proxy import LoopbackServer

MIB = 1 << 20
OK = b"HTTP/1.1 200 OK\r\n"
LATER = b"HTTP/1.1 503 Later\r\n"
ANSWER = json.dumps(good("fine")).encode()


class RawService(LoopbackServer):
    """Sends these bytes for each request; the connection stays open until the client closes it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            for piece in self._pieces:
                writer.write(piece)
                await writer.drain()
            while await reader.read(MIB):
                pass


class Endless:
    """`head` once for each reader, then `piece` for ever."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self._head, self._piece = head, piece

    def __iter__(self) -> Any:
        return itertools.chain([self._head], itertools.repeat(self._piece))


def ask(
    pieces: Iterable[bytes], sampling: Sampling | None = None, **options: Any
) -> tuple[list[Answer], OpenAIEngine, RawService]:
    with RawService(pieces) as service:
        engine = OpenAIEngine()
        options = {"start_patience_s": 0, **options}
        with EngineDriver(engine, EngineConfig("openai", "m", base_urls=(service.url,), engine_options=options)) as on:
            engine._backoff = Backoff(first_s=0.0, most_s=0.0)
            return on.ask(["a"], sampling), engine, service


def packed(name: str, size_bytes: int, level: int = 9) -> bytes:
    """So many spaces about an answer."""
    content = b" " * size_bytes + ANSWER
    if name == "gzip":
        return gzip.compress(content, level)
    if name == "raw":
        pack = zlib.compressobj(level, zlib.DEFLATED, -15)
        return pack.compress(content) + pack.flush()
    return zlib.compress(content, level)


def reply(body: bytes, *headers: bytes, status: bytes = OK) -> list[bytes]:
    return [status + b"".join(each + b"\r\n" for each in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw"])
def test_a_compressed_answer_is_read(coding: str) -> None:
    name = b"gzip" if coding == "gzip" else b"deflate"
    answers, _, _ = ask(reply(packed(coding, 3 * MIB), b"Content-Encoding: " + name))
    assert texts(answers) == ["fine"]


@pytest.mark.parametrize(
    "pieces",
    [
        Endless(OK + b"\r\n", b"x" * 65_536),
        Endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65_536 + b"\r\n"),
        [OK + b"Content-Length: 99999999999\r\n\r\n"],
        reply(packed("gzip", 64 * MIB), b"Content-Encoding: gzip"),
        reply(packed("deflate", 64 * MIB), b"Content-Encoding: deflate"),
        reply(packed("raw", 64 * MIB), b"Content-Encoding: deflate"),
    ],
    ids=["no length", "chunked", "announced", "gzip", "deflate", "raw deflate"],
)
def test_an_answer_without_end_is_refused_with_the_limit_after_two_tries(pieces: Iterable[bytes]) -> None:
    (answer,), engine, service = ask(pieces, Sampling(max_tokens=1024))
    assert answer.code == "refused" and "body is over 2.0" in answer.message and "sent twice" in answer.message
    assert service.asked == 2
    assert engine._calls.held.most_bytes <= 2.1 * MIB
    assert engine._calls.held.total_bytes == 0


@pytest.mark.parametrize(
    "lines",
    [b"X: " + b"a" * 10_000_000 + b"\r\n", b"".join(b"X-%d: a\r\n" % number for number in range(200_000))],
    ids=["10 MB in one", "200,000"],
)
def test_headers_that_are_too_large_are_told_as_such(lines: bytes) -> None:
    (answer,), _, service = ask([OK + lines + b"Content-Length: 2\r\n\r\n{}"])
    assert answer.code == "refused"
    assert "headers are too large" in answer.message and "8190 bytes" in answer.message and "128" in answer.message
    assert "aaaa" not in answer.message
    assert service.asked == 2


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (reply(b"x", b"Content-Encoding: br"), "Content-Encoding is br; expected gzip, deflate"),
        (reply(b"x", b"Content-Encoding: zstd"), "Content-Encoding is zstd"),
        (reply(b"x", b"Content-Encoding: sk-secret"), "Content-Encoding is unknown"),
        (reply(b"not valid gzip", b"Content-Encoding: gzip"), "not valid gzip"),
        (reply(packed("gzip", 9)[:-9], b"Content-Encoding: gzip"), "truncated"),
        (reply(packed("gzip", 9) + b"more", b"Content-Encoding: gzip"), "trailing data"),
        ([b"no HTTP at all\r\n\r\n"], "not valid HTTP"),
    ],
)
def test_a_body_that_can_not_be_read_is_the_services_failure(pieces: list[bytes], words: str) -> None:
    (answer,), _, service = ask(pieces, retries=1)
    assert answer.code == "retry" and words in answer.message and "secret" not in answer.message
    assert service.asked == 2


@pytest.mark.parametrize("status", [b"400", b"404", b"302"])
def test_the_body_of_a_refusal_without_end_is_left(status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b" No\r\nLocation: http://127.0.0.1:1/v1?key=sk-secret\r\n\r\n"
    (answer,), engine, service = ask(Endless(head, b"x" * 65_536))
    assert answer.code == "refused" and f"status {status.decode()}" in answer.message
    assert ("redirect" in answer.message) is (status == b"302") and "secret" not in answer.message
    assert service.asked == 1 and engine._calls.held.most_bytes <= MAX_REFUSAL_BYTES


def test_the_body_of_a_passing_failure_without_end_is_left() -> None:
    (answer,), engine, _ = ask(Endless(LATER + b"\r\n", b"x" * 65_536), patience_s=0.05)
    assert answer.code == "retry" and "status 503" in answer.message
    assert engine._calls.held.most_bytes <= MAX_REFUSAL_BYTES


def test_a_body_that_drips_for_ever_ends_at_the_time_limit_and_says_what_came() -> None:
    (answer,), _, _ = ask([OK + b"\r\n", b"{"], timeout_s=0.3, retries=0)
    assert answer.code == "retry" and "1 bytes of its reply" in answer.message and "timeout_s is 0.3" in answer.message


def test_replies_that_are_too_large_together_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is within its limit; the service is asked for fewer at a time."""
    monkeypatch.setattr(openai_body, "MAX_HELD_BYTES", 8 * MIB)
    monkeypatch.setattr("penstock.engines.openai.endpoints.LEAST_TIME_BETWEEN_CUTS_S", 0.0)
    body = json.dumps(good("x" * 3 * MIB)).encode()
    with Service([(200, body.decode())] * 400) as service:
        engine = OpenAIEngine()
        options = {"start_patience_s": 0, "concurrency": 16}
        with EngineDriver(engine, EngineConfig("openai", "m", base_urls=(service.url,), engine_options=options)) as on:
            engine._backoff = Backoff(first_s=0.01, most_s=0.05)
            answers = on.ask(["a"] * 24)
    assert {answer.code for answer in answers} == {""}
    assert engine._calls.held.most_bytes <= 8 * MIB


@pytest.mark.parametrize(
    "pieces",
    [Endless(OK + b"\r\n", b"x" * 65_536), [OK + b"X: " + b"a" * 10_000 + b"\r\n\r\n"], [b"no HTTP\r\n\r\n"]],
    ids=["endless", "headers", "not valid HTTP"],
)
def test_who_answers_anything_is_there_when_the_engine_loads(pieces: Iterable[bytes]) -> None:
    with RawService(pieces) as service:
        config = EngineConfig("openai", "m", base_urls=(service.url,), engine_options={"start_patience_s": 60})
        with EngineDriver(OpenAIEngine(), config) as on:
            assert service.asked == 1
            assert len(on.notes) == 1, "nothing is said of a service that is away"


async def pieces_of(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 65_536):
        yield data[at : at + 65_536]


def peak_bytes(coding: str, data: bytes, limit_bytes: int) -> int:
    """The most memory that Python held while such a body was read, beside the body as it came."""
    with Body(Held(), "url") as body, pytest.raises(OutsizedReply):
        tracemalloc.start()
        try:
            asyncio.run(body.read(pieces_of(data), limit_bytes, coding))
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    return peak


@pytest.mark.parametrize("body", [packed("gzip", 4 * MIB)[:-9], packed("gzip", 4 * MIB - 200) + b"more"])
def test_replies_that_failed_are_not_held(body: bytes) -> None:
    """Each of thirty broken replies has 4 MiB, unpacked."""
    pieces = reply(body, b"Content-Encoding: gzip")
    tracemalloc.start()
    try:
        (answer,), _, service = ask(pieces, Sampling(max_tokens=8192), retries=30)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert answer.code == "retry" and service.asked == 31
    assert peak < 20 * MIB


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_takes_the_limit_and_a_little_more(coding: str) -> None:
    assert peak_bytes(coding, packed(coding, 256 * MIB), 8 * MIB) < 16 * MIB


@pytest.mark.parametrize(
    ("asked_bytes", "sampling", "limit_bytes"),
    [
        (1000, None, 64 * MIB),
        (1000, Sampling(), 64 * MIB),
        (0, Sampling(max_tokens=256), MIB + 256 * 1024),
        (1000, Sampling(max_tokens=256, n=4), MIB + 64_000 + MIB),
        (10 * MIB, Sampling(max_tokens=1), 64 * MIB),
        (1000, Sampling(max_tokens=10**9), 64 * MIB),
    ],
)
def test_the_limit_follows_what_was_asked_for(asked_bytes: int, sampling: Sampling | None, limit_bytes: int) -> None:
    assert reply_limit_bytes(asked_bytes, sampling) == limit_bytes <= MAX_HELD_BYTES // 4


def test_what_all_hold_together_is_given_back() -> None:
    held = Held()
    with pytest.raises(CallFailed, match="256 MiB") as raised, Body(held, "url") as body:
        held.total_bytes = MAX_HELD_BYTES - 10
        asyncio.run(body.read(pieces_of(b"x" * 100), 1000))
    assert raised.value.kind == "busy"
    assert held.total_bytes == MAX_HELD_BYTES - 10
