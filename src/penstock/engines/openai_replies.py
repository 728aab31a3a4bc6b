"""Replies that came before. A faulty proxy may send the bytes of a reply twice; on a connection that is kept, the
second copy looks like the reply to the next request. Services give each reply an id of its own: a copy can be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from penstock.engines.openai_request import CallFailed

__all__ = ["RepeatedReply", "Replies"]

REMEMBERED = 8192  # replies
SAME_ID_LIMIT = 3  # copies in a row with one id: this service calls all replies so


class _Named(msgspec.Struct):
    id: str | None = None


class RepeatedReply(CallFailed):
    """The bytes of an earlier reply came in place of one. What the connection brings next is not to be trusted."""

    def __init__(self, url: str, reply_id: str) -> None:
        super().__init__(f"{url}: the reply to another request came a second time", "broken")
        self.reply_id = reply_id


class Replies:
    """The last replies of one service, by id. A service whose ids are not its replies' own is not judged by them."""

    def __init__(self) -> None:
        self._seen: dict[str, bytes] = {}
        self._decoder = msgspec.json.Decoder(_Named)
        self.judged = True

    def check(self, url: str, content: bytes) -> None:
        """Raises RepeatedReply."""
        if not self.judged:
            return
        try:
            name = self._decoder.decode(content).id
        except msgspec.MsgspecError:
            return  # told by who reads it
        if not name:
            return
        digest = hashlib.blake2b(content, digest_size=8).digest()
        before = self._seen.setdefault(name, digest)
        if before is digest:
            if len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]
        elif before == digest:
            raise RepeatedReply(url, name)
        else:
            self.judged = False

    def despair(self, failures: Sequence[CallFailed]) -> None:
        """Give up judging a service that answers one request with one reply again and again."""
        names = [failure.reply_id for failure in failures if isinstance(failure, RepeatedReply)]
        if len(names) >= SAME_ID_LIMIT and len(set(names[-SAME_ID_LIMIT:])) == 1:
            self.judged = False
