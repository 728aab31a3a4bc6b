"""Failures of the disk or the network under a file, as opposed to faults of the file itself."""

from __future__ import annotations

import errno

__all__ = ["may_pass"]

# The disk or the network failed, and may come back; the file itself may be sound.
_PASSING = frozenset((errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EHOSTDOWN, errno.EHOSTUNREACH))


def may_pass(error: BaseException) -> bool:
    """Whether what failed is the disk or the network under a file, so that it may be read again."""
    return isinstance(error, OSError) and error.errno in _PASSING
