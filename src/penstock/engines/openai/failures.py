"""Why one call of a service failed, other than by the request's fault."""

from __future__ import annotations

__all__ = ["CallFailed", "Misdelivered", "OutsizedReply"]

_WORDS = {
    "other": "received the reply to another request",
    "repeated": "received the reply to another request again",
    "unproven": "received a reply on a reused connection that may belong to another request",
}


class CallFailed(Exception):
    """One call failed for a reason that is the service's.

    kind  busy: it has too much to do; away: it could not be reached; broken: this call failed, others need not
    """

    def __init__(self, message: str, kind: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s

    def bare(self) -> CallFailed:
        """The same without its traceback and causes, whose frames hold the reply: to be kept."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class Misdelivered(CallFailed):
    """What came is not, or may not be, the reply to this request. why, at_once: of core.service.Verdict."""

    def __init__(self, url: str, why: str, *, at_once: bool) -> None:
        super().__init__(f"{url}: {_WORDS[why]}", "broken")
        self.at_once = at_once


class OutsizedReply(CallFailed):
    """More than a reply may hold. Where it comes again it is the request's own failure: the next try is no better."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "broken")
