"""The invariants of what a driver runs, as checks that it can do one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from penstock.core.core import Core
from penstock.core.dispatch.check import check_dispatch
from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.flow.check import check_flow


class Check(NamedTuple):
    """size: what it costs time in proportion to, now. check: raises InvariantError, with the story."""

    name: str
    size: Callable[[], int]
    check: Callable[[], None]


def core_checks(core: Core) -> list[Check]:
    """Of a run: its dispatcher, and the flow of whatever phase it is in."""
    flow = Check("flow", lambda: len(core.flow.open), lambda: check_flow(core.flow))
    return [flow, *dispatch_checks(core.dispatch)]


def dispatch_checks(dispatch: Dispatch) -> list[Check]:
    return [Check("dispatch", lambda: _held(dispatch), lambda: check_dispatch(dispatch))]


def _held(dispatch: Dispatch) -> int:
    """Requests that it holds."""
    waiting = sum(pool.waiting() for pool in dispatch.pools)
    return waiting + sum(len(replica.in_flight) for replica in dispatch.replicas)
