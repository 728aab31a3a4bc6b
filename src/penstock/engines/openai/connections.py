"""Connections to services, each used by one request at a time until its reply has been judged.

The pool of an HTTP client has a connection back as soon as the last byte of a reply is there, and takes what comes on
it unasked for the beginning of the next reply. Here a connection is a session of its own where it may be kept, and
`penstock.core.service` says whether it is; all others are closed with their reply.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from penstock.core.service import Connection, Service, Verdict

__all__ = ["Connections"]

_CLOSED = Verdict(taken=False)


class Connections:
    """The connections to one service. `settings` are those of aiohttp.ClientSession."""

    def __init__(self, aiohttp: Any, service: Service, **settings: Any) -> None:
        self._aiohttp, self._service, self._settings = aiohttp, service, settings
        self._kept: dict[int, Any] = {}
        self._once: Any = None

    def once(self) -> Any:
        """The session that closes each connection after one reply."""
        if self._once is None:
            self._once = self._session(limit=0, force_close=True)
        return self._once

    def take(self, *, new: bool) -> BorrowedConnection:
        return BorrowedConnection(self, self._service.take(new=new))

    def session(self, connection: Connection) -> Any:
        if not self._service.keeps and connection.number not in self._kept:
            return self.once()
        if connection.number not in self._kept:
            self._kept[connection.number] = self._session(limit=1)
        return self._kept[connection.number]

    async def end(self, connection: Connection, verdict: Verdict) -> None:
        if connection.number not in self._kept:
            return  # it closed with its reply
        if not self._service.release(connection, verdict):
            await self._kept.pop(connection.number).close()

    def _session(self, **options: Any) -> Any:
        return self._aiohttp.ClientSession(
            connector=_quiet_connector(self._aiohttp)(**options),
            cookie_jar=self._aiohttp.DummyCookieJar(),
            auto_decompress=False,
            **self._settings,
        )

    async def close(self) -> None:
        sessions = [*self._kept.values(), *([self._once] if self._once is not None else ())]
        self._kept, self._once = {}, None
        for session in sessions:
            await session.close()


class BorrowedConnection:
    """One call. Its connection is closed at the end of the block unless `verdict` keeps it."""

    def __init__(self, connections: Connections, connection: Connection) -> None:
        self._connections = connections
        self.connection = connection
        self.verdict = _CLOSED

    async def __aenter__(self) -> BorrowedConnection:
        self.session = self._connections.session(self.connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.end(self.connection, self.verdict)


@cache
def _quiet_connector(aiohttp: Any) -> Any:
    """A connector that gives no connection on which anything came before its request was sent."""

    class QuietConnector(aiohttp.TCPConnector):  # type: ignore[misc]
        async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
            for _ in range(2):
                connection = await super().connect(req, traces, timeout)
                if connection.protocol is None or not connection.protocol.should_close:
                    return connection
                connection.close()
            raise aiohttp.ServerDisconnectedError("received a reply before the request")

    return QuietConnector
