"""What an exception of vLLM means: the row's fault, the attempt's, or the engine's death.

Judged by the names of the classes an exception descends from, since their modules differ between versions.
"""

from __future__ import annotations

from penstock.engines.sampling import RowFault

__all__ = ["fault_of", "is_death"]

_DEATH = frozenset({"EngineDeadError"})
_RETRY = frozenset({"GenerationError", "RetryableRequestError", "GracefulHTTPError", "QueueOverflowError",
                    "MaxQueuedTokensError"})  # fmt: skip
_ROW = frozenset({"VLLMClientError", "VLLMValidationError", "ValueError", "TypeError", "NotImplementedError"})
_TOO_LONG = ("maximum model length", "max_model_len", "maximum context length", "context length", "is too long")


def is_death(error: BaseException) -> bool:
    """Whether the engine behind the request is gone; nothing else can then be answered by this replica."""
    return any(_names(link) & _DEATH for link in _chain(error))


def fault_of(error: BaseException) -> RowFault:
    """The answer for a request that ended in `error`. A wrapper (EngineGenerateError) is judged by its cause."""
    for link in _chain(error):
        names = _names(link)
        text = f"{type(link).__name__}: {link}"
        if names & _RETRY:
            return RowFault("retry", text)
        if names & _ROW:
            too_long = any(sign in str(link).lower() for sign in _TOO_LONG)
            return RowFault("too_long" if too_long else "refused", str(link) or text)
    return RowFault("retry", f"{type(error).__name__}: {error}")


def _names(error: BaseException) -> set[str]:
    return {each.__name__ for each in type(error).__mro__}


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__
    return links
