"""How many examples a property is tried with: all of them in `make test-slow`, a quarter in `make test`."""

from __future__ import annotations

from hypothesis import settings


def examples(all_of_them: int) -> int:
    """As many of these as the profile has of 100; at least five."""
    return max(5, all_of_them * settings().max_examples // 100)
