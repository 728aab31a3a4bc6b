"""What a checker outside the core raises."""

from __future__ import annotations

__all__ = ["Violation"]


class Violation(Exception):
    """A promise was broken: the message says which, and by what."""
