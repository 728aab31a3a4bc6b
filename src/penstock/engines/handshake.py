"""Coordinator and host must be the same Penstock: the messages between them are not versioned field by field."""

from __future__ import annotations

from penstock.engines.messages import PROTOCOL_VERSION, Hello
from penstock.errors import ConfigError

__all__ = ["check_hello", "source_version"]


def source_version() -> str:
    """The version of the Penstock that this process runs."""
    import penstock

    return str(getattr(penstock, "__version__", "unknown"))


def check_hello(hello: Hello, *, replica: str) -> None:
    """Raises ConfigError when the host at the other end runs another Penstock."""
    ours = source_version()
    if hello.version == PROTOCOL_VERSION and hello.penstock == ours:
        return
    raise ConfigError(
        f"the host of {replica} (process {hello.pid}, Python {hello.python}) runs Penstock {hello.penstock} with "
        f"protocol {hello.version}, this process {ours} with protocol {PROTOCOL_VERSION}; "
        "install the same Penstock for the interpreter that `python:` of the model names"
    )
