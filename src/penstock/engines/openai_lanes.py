"""Connections to services, each used by one request at a time until its reply has been looked at.

The pool of an HTTP client has a connection back as soon as the last byte of a reply is there. If the reply then turns
out to be another's, the next request is on that connection already, and gets the wrong reply as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["Lanes"]


class Lanes:
    """Sessions of one connection each, by URL. `settings` are those of aiohttp.ClientSession."""

    def __init__(self, aiohttp: Any, **settings: Any) -> None:
        self._aiohttp, self._settings = aiohttp, settings
        self._free: dict[str, list[Any]] = {}

    @asynccontextmanager
    async def take(self, url: str) -> AsyncIterator[Any]:
        """A session for one request. It is used again where the block ends well, and closed with its connection where
        it raises."""
        free = self._free.setdefault(url, [])
        session = free.pop() if free else self._open()
        try:
            yield session
        except BaseException:
            await session.close()
            raise
        free.append(session)

    def _open(self) -> Any:
        return self._aiohttp.ClientSession(
            connector=self._aiohttp.TCPConnector(limit=1),
            cookie_jar=self._aiohttp.DummyCookieJar(),
            **self._settings,
        )

    async def close(self) -> None:
        """Close those that nobody uses."""
        for free in self._free.values():
            while free:
                await free.pop().close()
