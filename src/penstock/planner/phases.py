"""Where a pipeline is cut because its models do not fit together: each phase runs its steps over all rows, then the
devices go to the next. A model that is used again after others have had its devices is loaded again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["cut"]


def cut(uses: Sequence[str], together: Callable[[tuple[str, ...]], bool]) -> tuple[tuple[str, ...], ...] | None:
    """Pools in the order in which steps use them, to phases: each as long as its pools fit together.

    None where one does not even fit alone.
    """
    phases: list[tuple[str, ...]] = []
    current: tuple[str, ...] = ()
    for name in uses:
        if name in current:
            continue
        if together((*current, name)):
            current = (*current, name)
        elif current and together((name,)):
            phases.append(current)
            current = (name,)
        else:
            return None
    return (*phases, current) if current else tuple(phases)
