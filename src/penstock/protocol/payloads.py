"""Payloads of a request: one union, distinguished by its form on the wire.

    str        a prompt to continue, or a text to embed or classify; the request's options say which
    dict       the row of a Python step, with the types of its values (see `values`)
    TokenIds   a prompt as token ids, given to the model as they are
    Messages   a chat, each message a text or a list of parts (text, image)
    Pair       a query and the texts to score against it
    RawBody    a client's own body of an OpenAI route, unread

A prompt is a bare string and a row a bare dict, since they are nearly all that a run sends: a wrapper would cost each
request an object on both sides. An engine names the kinds that it takes in `Capacity.payloads`; the host refuses the
others before the engine sees them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

__all__ = [
    "ALL_KINDS",
    "TYPES",
    "ImagePart",
    "Message",
    "Messages",
    "Pair",
    "Payload",
    "RawBody",
    "TextPart",
    "TokenIds",
    "chat",
    "guessed_tokens",
    "kind_of",
    "text_bytes",
    "texts_in",
]

ALL_KINDS = ("text", "tokens", "messages", "images", "pair", "body", "row")
"""Kinds of payloads, as `kind_of` names them. `images`: messages of which one has an image."""


class TextPart(msgspec.Struct, frozen=True, gc=False, tag="text"):
    text: str


class ImagePart(msgspec.Struct, frozen=True, gc=False, tag="image"):
    """One of `path` (a file that the host can read) and `data` (the file's bytes). media_type: as in `image/png`."""

    path: str = ""
    data: bytes = b""
    media_type: str = ""


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    role: str
    content: str | list[TextPart | ImagePart]


class TokenIds(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="tokens"):
    ids: list[int]


class Messages(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="messages"):
    items: list[Message]

    def as_dicts(self) -> list[dict[str, Any]]:
        """{role, content} of the OpenAI chat API: content a text, or a list of parts where one is an image."""
        return [{"role": message.role, "content": _content(message)} for message in self.items]

    @property
    def has_images(self) -> bool:
        return any(
            isinstance(part, ImagePart)
            for message in self.items
            if not isinstance(message.content, str)
            for part in message.content
        )


class Pair(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="pair"):
    """One score for each of `texts`, in their order."""

    query: str
    texts: list[str]


class RawBody(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="body"):
    """JSON, as the client sent it. path: of the route, as in `/v1/chat/completions`."""

    body: bytes
    path: str


Payload = str | dict[str, Any] | TokenIds | Messages | Pair | RawBody

TYPES: dict[type, str] = {str: "text", dict: "row", TokenIds: "tokens", Pair: "pair", RawBody: "body"}
"""Kinds that a type alone tells; of messages it depends on their parts."""


def kind_of(payload: Payload | None) -> str:
    """One of ALL_KINDS."""
    if isinstance(payload, Messages):
        return "images" if payload.has_images else "messages"
    return TYPES[type(payload)]


def chat(messages: Sequence[Mapping[str, str]]) -> Messages:
    """A chat of texts, from {role, content}."""
    return Messages([Message(message["role"], message["content"]) for message in messages])


def texts_in(payload: Payload | None) -> list[str]:
    """The texts that a model would read. A raw body is not looked into; a row has none."""
    match payload:
        case str():
            return [payload]
        case Messages():
            return [text for message in payload.items for text in _texts_of(message)]
        case Pair():
            return [payload.query, *payload.texts]
        case _:
            return []


_BYTES_PER_TOKEN = 4


def text_bytes(payload: Payload | None) -> int:
    """Bytes of text that become tokens of the prompt, in UTF-8: four are near a token of English, and three, one
    character, near a token of Chinese or Japanese. Token ids count as four each."""
    if type(payload) is str:
        return _utf8_bytes(payload)
    if isinstance(payload, RawBody):
        return len(payload.body)
    if isinstance(payload, TokenIds):
        return _BYTES_PER_TOKEN * len(payload.ids)
    return sum(map(_utf8_bytes, texts_in(payload)))


def guessed_tokens(payload: Payload | None) -> int:
    """Tokens of a prompt before anybody has tokenised one; 0 for the row of a function."""
    return 0 if type(payload) is dict else text_bytes(payload) // _BYTES_PER_TOKEN + 1


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _texts_of(message: Message) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text for part in message.content if isinstance(part, TextPart)]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    if all(isinstance(part, TextPart) for part in message.content):
        return "\n".join(_texts_of(message))  # many chat templates take texts alone
    return [_part_as_dict(part) for part in message.content]


def _part_as_dict(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if part.path:
        return {"type": "image_url", "image_url": {"url": f"file://{part.path}"}}
    media_type = part.media_type or "application/octet-stream"
    data = base64.b64encode(part.data).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}
