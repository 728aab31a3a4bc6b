"""Keeps descriptors 0 to 2 open, so that no socket or file is given one of them."""

from __future__ import annotations

import os

__all__ = ["occupy_standard"]


def occupy_standard() -> None:
    """Open the null device wherever standard input, output or error is closed.

    A service may start a program without them. The next socket would then get such a number, and a child process,
    which puts its own input and output there, would lose the socket.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
