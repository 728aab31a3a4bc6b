"""One call of a service: the request on its way, the reply read within bounds, and judged before it is believed."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from typing import Any

import msgspec

from penstock.core.service import Asked, Reply, Service, marks_in
from penstock.engines.openai.body import ACCEPTED_CODINGS, MAX_REFUSAL_BYTES, Body, Held
from penstock.engines.openai.connections import BorrowedConnection, Connections
from penstock.engines.openai.failures import CallFailed, Misdelivered, OutsizedReply
from penstock.engines.openai.request import Api, address, is_passing
from penstock.protocol.messages import Answer, Request
from penstock.redaction import shown_url

__all__ = ["Calls"]

_HEADER = "X-Request-Id"
_HEADER_LINE_BYTES = 8190
_HEADER_LINES = 128


class _NamedReply(msgspec.Struct):
    id: str | int | None = None


class Calls:
    """Calls of several services by one engine. `settings` are those of aiohttp.ClientSession."""

    def __init__(self, aiohttp: Any, api: Api, **settings: Any) -> None:
        self._aiohttp, self._api = aiohttp, api
        self._settings = {**settings, "headers": {"Accept-Encoding": ACCEPTED_CODINGS, **api.headers}}
        self._settings |= {"max_line_size": _HEADER_LINE_BYTES, "max_field_size": _HEADER_LINE_BYTES}
        self._timeout_s: float = settings["timeout"].total
        self._connections: dict[str, Connections] = {}
        self._services: dict[str, Service] = {}
        self._named = msgspec.json.Decoder(_NamedReply)
        self._marks = all(header.lower() != _HEADER.lower() for header in api.headers)
        self._process = secrets.token_hex(4)
        self._numbers = itertools.count()
        self.held = Held()

    def connections(self, url: str) -> Connections:
        if url not in self._connections:
            self._services[url] = Service()
            self._connections[url] = Connections(self._aiohttp, self._services[url], **self._settings)
        return self._connections[url]

    async def close(self) -> None:
        for connections in self._connections.values():
            await connections.close()

    async def send(self, url: str, body: bytes, request: Request, *, new: bool) -> Answer:
        """The answer of one call; on a new connection where that is asked for. Raises CallFailed, RowFault."""
        aiohttp = self._aiohttp
        number = f"{self._process}{next(self._numbers) & 0xFFFFFFFF:08x}"
        asked = Asked(hashlib.blake2b(body, digest_size=12).hexdigest(), number)
        shown = shown_url(url)
        came = Body(self.held, shown)
        try:
            with came:
                async with self.connections(url).take(new=new) as borrowed:
                    return await self._exchange(borrowed, url, body, asked, came, request)
        except TimeoutError as error:
            kind = "away" if isinstance(error, aiohttp.ConnectionTimeoutError) else "broken"
            received = f" with {came.wire_bytes} bytes of its reply" if came.wire_bytes else ""
            raise CallFailed(
                f"{shown}: {type(error).__name__}{received} (timeout_s is {self._timeout_s:g})", kind
            ) from error
        except aiohttp.ClientResponseError as error:  # the reply is not valid HTTP, or too large
            raise self._unreadable(shown, error) from error
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError) as error:
            raise CallFailed(f"{shown}: {type(error).__name__}", "broken") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CallFailed(f"{shown}: {type(error).__name__}", "away") from error

    async def _exchange(
        self, borrowed: BorrowedConnection, url: str, body: bytes, asked: Asked, came: Body, request: Request
    ) -> Answer:
        headers = {"Content-Type": "application/json"}
        if self._marks:
            headers[_HEADER] = asked.mark
        response = await borrowed.session.post(
            address(url, self._api.path), data=body, headers=headers, allow_redirects=False
        )
        try:
            content, whole = await self._content(response, came, self._api.limit_bytes(body, request))
        finally:
            response.close()  # one that was read to its end has given its connection back already
        status: int = response.status
        if not is_passing(status):
            texts = [*response.headers.values(), self._id(content)]
            reply = Reply(
                marks=tuple(marks_in(texts)),
                id=texts[-1],
                content=hashlib.blake2b(content, digest_size=8).hexdigest(),
                success=status == 200,
            )
            verdict = self._services[url].judge(borrowed.connection, asked, reply)
            if not verdict.taken:
                raise Misdelivered(shown_url(url), verdict.why, at_once=verdict.at_once)
            if whole:
                borrowed.verdict = verdict
        return self._api.read(shown_url(url), status, response.headers, content, request)

    async def _content(self, response: Any, came: Body, most_bytes: int) -> tuple[bytearray, bool]:
        """The body, and whether that is all of it: that of a refusal is left where it is too large or can't be read."""
        success = response.status == 200
        limit_bytes = most_bytes if success else MAX_REFUSAL_BYTES
        coding = response.headers.get("Content-Encoding", "")
        try:
            content = await came.read(response.content.iter_any(), limit_bytes, coding, response.content_length)
        except CallFailed:
            if success:
                raise
            return bytearray(), False
        return content, True

    def _id(self, content: bytearray) -> str:
        try:
            return str(self._named.decode(content).id or "")
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return ""  # reported by the caller

    def _unreadable(self, url: str, error: Any) -> CallFailed:
        """What the HTTP client refused to read. Its message is not shown: it contains bytes of the reply."""
        if error.message.startswith(("Got more than", "Too many")):
            return OutsizedReply(
                f"{url}: the reply's headers are too large: over {_HEADER_LINE_BYTES} bytes in one, or over "
                f"{_HEADER_LINES} of them"
            )
        return CallFailed(f"{url}: the reply is not valid HTTP", "broken")
