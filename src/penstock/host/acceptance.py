"""Which requests an engine can honour, by its record. The others are refused in the host, each with the reason, so that
no engine has to look for what it was never made for, and none ignores it in silence."""

from __future__ import annotations

from penstock.engine_info import EngineInfo
from penstock.protocol.messages import Request
from penstock.protocol.options import PARTS, Options, Sampling, tag_of
from penstock.protocol.payloads import TYPES, kind_of

__all__ = ["Acceptance"]

_FURTHER = ("structured", "labels")  # fields of Sampling that an engine names one by one


class Acceptance:
    """What `info` says of payloads and options. types: of payloads that need no closer look."""

    def __init__(self, info: EngineInfo) -> None:
        self._name = info.name
        self._payloads = info.payloads
        self._honours = info.honours
        self.types = frozenset(type_ for type_, kind in TYPES.items() if kind in info.payloads)

    def refusal(self, request: Request) -> str:
        """Why the engine can't be asked this; "" where it can."""
        kind = kind_of(request.payload)
        if kind not in self._payloads:
            return f"the {self._name} engine takes {', '.join(sorted(self._payloads))}, not {kind}"
        if request.listener and PARTS not in self._honours:
            return f"the {self._name} engine can't stream: it gives an answer as a whole"
        return ""

    def refusal_of_options(self, options: Options) -> str:
        """The same for options. An engine that samples honours all fields of Sampling but those it has to name."""
        if "row" in self._payloads:
            return ""  # a Python function has no options
        wanted = [tag_of(options)]
        if isinstance(options, Sampling):
            wanted += [name for name in _FURTHER if getattr(options, name) is not None]
        missing = [name for name in wanted if name not in self._honours]
        if not missing:
            return ""
        return f"the {self._name} engine can't do {', '.join(missing)}; it can do {', '.join(sorted(self._honours))}"
