"""Frames on the socket between a coordinator and a host: a 4-byte big-endian length and a msgpack body.

`encode` makes one frame of a message. A `Decoder` takes bytes as they come and yields whole messages; there is one
for each direction, so that either side accepts only what the other may send. Rows of Python steps keep their types
(see `values`); nothing is unpickled.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from penstock.errors import PenstockError
from penstock.protocol import messages
from penstock.protocol.messages import Answer, AnswerPart, Answers, Requests, ToCoordinator, ToHost, WireRequest
from penstock.protocol.values import UnsendableValue, as_extension, escaped, for_function, from_extension, to_wire

__all__ = [
    "Decoder",
    "MessageTooLarge",
    "WireError",
    "coordinator_decoder",
    "decode_answer",
    "decode_parts",
    "encode",
    "encode_answer",
    "encode_answers",
    "encode_parts",
    "encode_requests",
    "host_decoder",
]

_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder(enc_hook=as_extension)
_parts = msgspec.msgpack.Decoder(list[AnswerPart])
_answers = msgspec.msgpack.Decoder(Answer, ext_hook=from_extension)

Message = TypeVar("Message")


class WireError(PenstockError):
    """Bytes that are no message of the protocol, or a message too large for it. The connection is beyond repair."""


class MessageTooLarge(WireError):
    """A message that is larger than the protocol allows was not sent."""


def encode(message: ToHost | ToCoordinator) -> bytearray:
    """One frame. Raises MessageTooLarge, and UnsendableValue for what has no form on the wire."""
    if type(message) is Requests:
        _make_rows_sendable(message)
    frame = bytearray(_LENGTH.size)
    try:
        _encoder.encode_into(message, frame, _LENGTH.size)
    except UnicodeEncodeError as error:
        raise UnsendableValue(
            f"a text that is not valid Unicode: a lone surrogate at character {error.start}"
        ) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnsendableValue(str(error)) from None
    body_bytes = len(frame) - _LENGTH.size
    if body_bytes > messages.MAX_MESSAGE_BYTES:
        raise MessageTooLarge(_too_large(body_bytes))
    _LENGTH.pack_into(frame, 0, body_bytes)
    return frame


def encode_answers(message: Answers, instead: Callable[[Answer, str], Answer]) -> list[bytearray]:
    """The frames of `message`: one, or several where it is too large for one. An answer that can't be sent costs
    itself alone: `instead` gives the one that goes in its place, from it and the reason."""
    try:
        return [encode(message)]
    except (UnsendableValue, MessageTooLarge) as error:
        items = message.items
        if not items:
            raise
        if len(items) == 1:
            message = Answers([instead(items[0], str(error))], message.load, message.returned, message.sized)
            return [encode(message)]
    first = Answers(items[: len(items) // 2], message.load)
    second = Answers(items[len(items) // 2 :], message.load, message.returned, message.sized)
    return encode_answers(first, instead) + encode_answers(second, instead)


def encode_requests(message: Requests) -> tuple[list[bytearray], list[tuple[WireRequest, str]]]:
    """The frames of `message`, and the requests that can't be sent, each with the reason."""
    try:
        return [encode(message)], []
    except (UnsendableValue, MessageTooLarge) as error:
        items = message.items
        if len(items) == 1:
            return [], [(items[0], str(error))]
    frames, refused = encode_requests(Requests(items[: len(items) // 2], message.options, message.echo))
    more_frames, more_refused = encode_requests(Requests(items[len(items) // 2 :], message.options, message.echo))
    return frames + more_frames, refused + more_refused


def _make_rows_sendable(message: Requests) -> None:
    """Rows of Python steps in what msgpack has, in place: the message is made for sending, and its rows stay as they
    are. Other payloads need nothing."""
    for request in message.items:
        if type(request.payload) is dict:
            request.payload = to_wire(request.payload)


def _too_large(size_bytes: int) -> str:
    return f"a message of {size_bytes} bytes; the limit is {messages.MAX_MESSAGE_BYTES}"


class Decoder(Generic[Message]):
    """Cuts a stream of bytes into messages.

    `feed` returns every message that is complete; the rest is kept until more bytes come. After a WireError the
    decoder is of no more use.
    """

    def __init__(self, types: Any, ext_hook: Callable[[int, memoryview], Any] = from_extension) -> None:
        self._decoder = msgspec.msgpack.Decoder(types, ext_hook=ext_hook)
        self._kept = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        if not self._kept:
            found, used = self._cut(data)
            if used < len(data):
                self._kept += memoryview(data)[used:]
            return found
        self._kept += data
        found, used = self._cut(self._kept)
        if used:
            del self._kept[:used]
        return found

    @property
    def kept_bytes(self) -> int:
        """Bytes of a message whose end has not come yet."""
        return len(self._kept)

    def _cut(self, data: bytes | bytearray) -> tuple[list[Message], int]:
        found: list[Message] = []
        start, end = 0, len(data)
        with memoryview(data) as view:
            while end - start >= _LENGTH.size:
                (size_bytes,) = _LENGTH.unpack_from(view, start)
                if size_bytes > messages.MAX_MESSAGE_BYTES:
                    raise WireError(_too_large(size_bytes) + "; the other side does not speak this protocol")
                after = start + _LENGTH.size + size_bytes
                if after > end:
                    break
                found.append(self._decode(view[start + _LENGTH.size : after]))
                start = after
        return found, start

    def _decode(self, body: memoryview) -> Message:
        with body:
            try:
                return self._decoder.decode(body)  # type: ignore[no-any-return]
            except MemoryError:
                raise
            except Exception as error:  # whatever a value's own type makes of bytes that are none
                message = f"a message of {len(body)} bytes that can't be read: {error}"
        raise WireError(message)


def encode_answer(answer: Answer) -> bytes:
    """An answer for itself, to be kept. Raises UnsendableValue for a value that no host could have sent."""
    value = to_wire(answer.value)
    return _encoder.encode(answer if value is answer.value else msgspec.structs.replace(answer, value=value))


def decode_answer(data: bytes) -> Answer:
    """The inverse of `encode_answer`. Raises WireError."""
    try:
        return _answers.decode(data)
    except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError, struct.error) as error:
        raise WireError(f"an answer that was kept can't be read: {error}") from None


def encode_parts(parts: list[AnswerPart]) -> bytes:
    """The frame of a `AnswerParts`. Raises UnsendableValue."""
    try:
        return _encoder.encode(parts)
    except UnicodeEncodeError:
        parts = [msgspec.structs.replace(part, text=escaped(part.text)) for part in parts]
    except (TypeError, ValueError, OverflowError) as error:
        raise UnsendableValue(str(error)) from None
    try:
        return _encoder.encode(parts)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnsendableValue(str(error)) from None


def decode_parts(frame: bytes) -> list[AnswerPart]:
    """The inverse of `encode_parts`. Raises WireError."""
    try:
        return _parts.decode(frame)
    except (msgspec.DecodeError, ValueError) as error:
        raise WireError(f"parts of answers that can't be read: {error}") from None


def host_decoder() -> Decoder[ToHost]:
    """Decodes what a coordinator sends."""
    return Decoder(ToHost, for_function)


def coordinator_decoder() -> Decoder[ToCoordinator]:
    """Decodes what a host sends."""
    return Decoder(ToCoordinator)
