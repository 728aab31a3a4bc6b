"""Which request a reply of a remote service belongs to, and what becomes of the connection that brought it.

HTTP/1.1 pairs replies with requests by their order on a connection alone. Something between that sends a reply twice,
asks the service twice, or puts in a reply of its own, shifts that order, and each later request on the connection gets
the reply to another. So the order is believed on a new connection only, where one request meets one reply.

Each request carries a mark (the header X-Request-Id): a digest of the request and a number of this try. A service that
repeats it, in a header or in the id of its reply, proves which request was answered:

    the reply says                          on a new connection         on one that was used before
    its own mark                            taken, connection kept      taken, connection kept
    the mark of another request             asked again                 asked again at once, connections kept no more
    the mark of another try of the request  taken (a cache)             asked again at once
    no mark                                 taken, unless its id was    asked again at once; after a success without
                                            that of another request     a mark connections are kept no more

"Asked again at once" is on a new connection, and costs the request no try: the price of having kept a connection. A
connection whose reply did not prove itself takes no further request.

Ids alone do not let a connection be kept: where the service was asked twice, the second reply has an id of its own.
They show a reply that came before to another request, as long as the service has shown that its ids are unique.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

PREFIX = "penstock-"
DIGEST_CHARS = 24
NUMBER_CHARS = 16
REMEMBERED = 8_192
"""Replies whose ids are known, per service."""
SAME_ID_LIMIT = 8
"""A service that has given no more ids than that, and repeats them so often in a row, gives no reply one of its own."""
_HEX = frozenset("0123456789abcdef")


def mark(digest: str, number: str) -> str:
    """The mark of one try of a request: 24 hexadecimal digits of the request, 16 of the try."""
    return f"{PREFIX}{digest}-{number}"


def marks_in(texts: Iterable[str]) -> list[str]:
    """All marks in them, of any process; one that is cut or altered is none."""
    found = []
    for text in texts:
        at = text.find(PREFIX)
        while at >= 0:
            digest_at = at + len(PREFIX)
            number_at = digest_at + DIGEST_CHARS + 1
            digest, number = text[digest_at : number_at - 1], text[number_at : number_at + NUMBER_CHARS]
            whole = len(digest) == DIGEST_CHARS and len(number) == NUMBER_CHARS and text[number_at - 1] == "-"
            if whole and _HEX.issuperset(digest) and _HEX.issuperset(number):
                found.append(mark(digest, number))
            at = text.find(PREFIX, digest_at)
    return found


class Asked(Struct, frozen=True):
    """One try of a request. digest: of all that the service is sent, 24 hexadecimal digits. number: of the try, 16."""

    digest: str
    number: str

    @property
    def mark(self) -> str:
        return mark(self.digest, self.number)


class Reply(Struct, frozen=True):
    """What a whole reply says of itself, whether it answers or refuses.

    marks: in its id and headers. id: "" where it has none. content: a digest of its body. success: it is an answer
    """

    marks: tuple[str, ...] = ()
    id: str = ""
    content: str = ""
    success: bool = True


class Connection(Struct):
    """asked: requests that were sent on it so far."""

    number: int
    asked: int = 0


class Verdict(Struct, frozen=True):
    """taken: the reply is this request's. kept: the connection may have another request.

    why      "other" it is the reply to another request; "repeated" it was, before; "unproven" it may be; "" taken
    at_once  ask again at once on a new connection; it counts as no try of the request
    """

    taken: bool
    kept: bool = False
    why: str = ""
    at_once: bool = False


_OWN = Verdict(taken=True, kept=True)
_TAKEN = Verdict(taken=True)


class Service:
    """One service, by URL: the connections to it that are free, and what its replies have shown."""

    def __init__(self) -> None:
        self.keeps = True  # ask that the connection stay open
        self._kept_brought_others = False
        self._free: list[Connection] = []
        self._connections = 0
        self._seen: dict[str, tuple[str, str]] = {}  # id -> digest of the request, of the reply
        self._ids = 0  # different ones so far
        self._ids_are_unique = True
        self._same_id = 0

    # ------------------------------------------------------------ connections

    def take(self, *, new: bool = False) -> Connection:
        """The connection for one request: a free one, or one that is opened for it (its `asked` is then 1)."""
        if self._free and not new and self.keeps:
            connection = self._free.pop()
        else:
            self._connections += 1
            connection = Connection(self._connections)
        connection.asked += 1
        return connection

    def release(self, connection: Connection, verdict: Verdict) -> bool:
        """The call on it has ended with a verdict; whether it stays open. One without a verdict is closed."""
        if not verdict.kept or not self.keeps:
            return False
        self._free.append(connection)
        return True

    # ------------------------------------------------------------ replies

    def judge(self, connection: Connection, asked: Asked, reply: Reply) -> Verdict:
        """Whether `reply`, which came on `connection`, is the one to `asked`."""
        used = connection.asked > 1
        if any(not each.startswith(f"{PREFIX}{asked.digest}-") for each in reply.marks):
            self._distrust(used)
            return Verdict(taken=False, why="other", at_once=used)
        if asked.mark in reply.marks:
            self.keeps = not self._kept_brought_others
            return _OWN
        if used:
            self._distrust(reply.success)
            return Verdict(taken=False, why="unproven", at_once=True)
        if reply.marks:
            return _TAKEN
        if reply.success:
            self.keeps = False
        return self._by_id(asked, reply)

    def _distrust(self, brought_another: bool) -> None:
        """Keep no connection any more, where one that was kept brought what may be the answer to another request."""
        if brought_another:
            self._kept_brought_others, self.keeps = True, False

    def _by_id(self, asked: Asked, reply: Reply) -> Verdict:
        if not reply.id or not self._ids_are_unique:
            return _TAKEN
        before = self._seen.get(reply.id)
        if before is None:
            self._ids += 1
            self._same_id = 0
            self._seen[reply.id] = (asked.digest, reply.content)
            if len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]
            return _TAKEN
        digest, content = before
        if digest == asked.digest:
            return _TAKEN  # the same was asked: a cache, or a retry
        if content == reply.content:
            self._same_id += 1
            if self._ids > SAME_ID_LIMIT or self._same_id < SAME_ID_LIMIT:
                return Verdict(taken=False, why="repeated")
        self._ids_are_unique = False
        self._seen.clear()
        return _TAKEN
