"""The thread of launched pools: what it does when its loop is blocked, and what hosts are given to load."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from driver_support import ThreadExecutor, call_to, plan_of, pools_of, started, texts

from penstock.core import events as ev
from penstock.errors import PoolFailed
from penstock.runtime.pool.thread import PoolThread
from penstock.runtime.replicas.record import Record
from penstock.runtime.watch.watchdog import LOOP_LIMIT_S

# ------------------------------------------------------------ a loop that is blocked


def test_a_blocked_loop_fails_its_calls_and_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = pools_of({"one": 1}, tmp_path)
    happened, blocked, gate = pools.effects.happened, threading.Event(), threading.Event()

    def held_up(events: list[ev.Event]) -> list[ev.Event]:
        blocked.set()
        gate.wait(20)
        return happened(events)

    monkeypatch.setattr(pools.effects, "happened", held_up)
    pools.start()
    call = call_to("one", "a")
    pools.begin(call)
    assert blocked.wait(20)
    for _ in range(int(LOOP_LIMIT_S) + 2):
        pools.stalls.look()
    with pytest.raises(PoolFailed, match="the pool's loop was blocked for 120 s; its stack traces are in"):
        call.wait()
    with pytest.raises(PoolFailed, match="was blocked"):
        pools.begin(call_to("one", "b"))
    pools.close()
    assert pools.is_alive()  # it was left behind
    gate.set()
    pools.join(20)
    pools.close()
    pools.record.close()
    assert "in held_up" in (tmp_path / "coordinator.log").read_text()


# ------------------------------------------------------------ the version of the weights


def test_a_host_receives_the_revision_of_its_model(tmp_path: Path) -> None:
    planned = plan_of({"one": 1})
    (replica,) = planned.replicas
    config = msgspec.structs.replace(replica.config, revision="abc123")
    planned = replace(planned, replicas=(replace(replica, config=config),))
    executor = ThreadExecutor()
    with started(PoolThread(planned, executor, Record(planned, tmp_path))) as pools:
        call = call_to("one", "a")
        pools.begin(call)
        assert len(texts(call)) == 1
    assert [setup.version for setup in executor.setups] == ["abc123"]
