from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol import messages
from penstock.protocol.messages import (
    Abort,
    Answer,
    Answers,
    Capacity,
    Close,
    EngineConfig,
    Heartbeat,
    Hello,
    Load,
    LoadFailed,
    Loading,
    Output,
    PythonWork,
    Ready,
    Requests,
    Setup,
    TakeBack,
    WireRequest,
)
from penstock.protocol.options import Sampling
from penstock.protocol.payloads import chat
from penstock.protocol.wire import WireError, coordinator_decoder, encode, host_decoder

LOAD = Load(1, 2, 3.5, 2.5, 7, 0.001, 99.25, 1 << 40)

TO_HOST = [
    Setup(
        "writer-0",
        EngineConfig("mock", "mock:x", engine_options={"slots": 3}, cores=(1, 2)),
        PythonWork(("m:f",), timeout_s=2.5),
    ),
    Requests(
        [WireRequest(1, 1, "a prompt", 0, 5, 2, 7, 8, 9), WireRequest(2, 3, chat([{"role": "user", "content": "hi"}]))],
        [Sampling(n=2)],
    ),
    TakeBack([1, 2, 1 << 50]),
    Abort([]),
    Close(),
]
TO_COORDINATOR = [
    Hello(1, "0.1.0", 17, "3.11.7"),
    Loading("reading weights"),
    Ready(Capacity(8, 4096, 2048, {"engine": "mock"}), 1.5),
    LoadFailed("error", "ValueError: no"),
    Answers([Answer(1, 1, "", "", [Output("text", "stop", 2, [1, 2], [-0.5, -1.5])], None, 9)], LOAD, [4, 5], [(1, 9)]),
    Answers([Answer(2, 1, "", "", [], b"\x00\x00\x80?" * 4)], LOAD),
    Heartbeat(LOAD),
]


@pytest.mark.parametrize("message", TO_HOST, ids=lambda message: type(message).__name__)
def test_what_a_coordinator_sends_arrives(message: msgspec.Struct) -> None:
    assert host_decoder().feed(bytes(encode(message))) == [message]  # type: ignore[arg-type]


@pytest.mark.parametrize("message", TO_COORDINATOR, ids=lambda message: type(message).__name__)
def test_what_a_host_sends_arrives(message: msgspec.Struct) -> None:
    assert coordinator_decoder().feed(bytes(encode(message))) == [message]  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(TO_HOST), max_size=6), st.lists(st.integers(1, 40)))
def test_messages_arrive_however_the_bytes_are_cut(sent: list[messages.ToHost], cuts: list[int]) -> None:
    stream = b"".join(encode(message) for message in sent)
    decoder = host_decoder()
    got: list[messages.ToHost] = []
    for size in cuts:
        got += decoder.feed(stream[:size])
        stream = stream[size:]
    got += decoder.feed(stream)
    assert got == sent
    assert decoder.kept_bytes == 0


@given(st.binary(max_size=200))
def test_garbage_is_a_wire_error_or_waits_for_more(data: bytes) -> None:
    decoder = host_decoder()
    try:
        decoder.feed(struct.pack(">I", len(data)) + data)
    except WireError as error:
        assert str(len(data)) in str(error)
    else:
        assert decoder.kept_bytes == 0


def test_each_direction_has_its_own_messages() -> None:
    with pytest.raises(WireError):
        host_decoder().feed(bytes(encode(Loading("x"))))
    with pytest.raises(WireError):
        coordinator_decoder().feed(bytes(encode(Close())))


def test_a_length_beyond_the_limit_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(WireError, match="1001 bytes; the limit is 1000"):
        host_decoder().feed(struct.pack(">I", 1001))
    with pytest.raises(WireError, match="1057 bytes; the limit is 1000"):
        encode(Requests([WireRequest(1, 1, "x" * 1000)]))


def test_a_strange_extension_is_refused() -> None:
    body = msgspec.msgpack.encode({"type": "abort", "ids": msgspec.msgpack.Ext(99, b"x")})
    with pytest.raises(WireError):
        host_decoder().feed(struct.pack(">I", len(body)) + body)


@pytest.mark.parametrize(
    "message",
    [
        Answers([Answer(1, 1, tokens_in=-1)], LOAD),
        Answers([Answer(1, 1, tokens_in=1 << 40)], LOAD),
        Answers([Answer(1, 1, outputs=[Output("", "stop", -(10**15))])], LOAD),
        Answers([Answer(1, 1, outputs=[Output("", "stop", (1 << 63) - 1)])], LOAD),
        Answers([], LOAD, sized=[(1, -5)]),
        Answers([], LOAD, sized=[(1, 1 << 40)]),
        Answers([], LOAD, sized=[(1, (1 << 64) - 1)]),
        Answers([], LOAD, sized=[(1, float("nan"))]),  # type: ignore[list-item]
        Answers([], LOAD, sized=[(1, 2.5)]),  # type: ignore[list-item]
        Answers([], LOAD, sized=[(1, True)]),
        Answers([], LOAD, sized=[(1, "9")]),  # type: ignore[list-item]
        Answers([], LOAD, sized=[("1", 9)]),  # type: ignore[list-item]
        Answers([], LOAD, sized=[(1, 9, 9)]),  # type: ignore[list-item]
        Heartbeat(msgspec.structs.replace(LOAD, executing=-1)),
        Heartbeat(msgspec.structs.replace(LOAD, busy_s=float("nan"))),
        Heartbeat(msgspec.structs.replace(LOAD, turnaround_s=float("inf"))),
        Heartbeat(msgspec.structs.replace(LOAD, progress=1 << 63)),
        Ready(Capacity(-1), 1.0),
    ],
    ids=str,
)
def test_figures_that_make_no_sense_break_the_protocol(message: messages.ToCoordinator) -> None:
    with pytest.raises(WireError, match="can't be read: Expected"):
        coordinator_decoder().feed(bytes(encode(message)))
