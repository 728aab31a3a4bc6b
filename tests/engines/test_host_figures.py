from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.host import meter
from penstock.host.figures import Figures, Occupancy, Turnaround
from penstock.host.host import cut_capacity
from penstock.host.meter import DeviceMeter, tree_figures
from penstock.protocol.messages import Capacity


def test_busy_time_and_its_share_of_the_slots() -> None:
    occupancy = Occupancy(4, 10.0)
    for executing, now_s in [(1, 11.0), (4, 12.0), (0, 15.0), (2, 20.0)]:
        occupancy.change(executing, now_s)
    occupancy.change(0, 22.0)
    assert occupancy.busy_s == 1 + 3 + 2
    assert occupancy.fill_s == 1 * 0.25 + 3 * 1.0 + 2 * 0.5


@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, 20), st.floats(0, 10))))
def test_fill_never_exceeds_busy_nor_busy_the_time(slots: int, changes: list[tuple[int, float]]) -> None:
    occupancy = Occupancy(slots, 0.0)
    now_s = 0.0
    for executing, later_s in changes:
        now_s += later_s
        occupancy.change(executing, now_s)
    assert 0 <= occupancy.fill_s <= occupancy.busy_s * 1.000001 <= now_s * 1.00001


def test_turnaround_is_a_maximum_that_decays() -> None:
    turnaround = Turnaround()
    turnaround.observe(100.0, 100.4)
    turnaround.observe(101.0, 101.1)
    assert 0.1 < turnaround.at(101.1) < 0.4
    assert abs(turnaround.at(100.4 + Turnaround.HALF_LIFE_S) - 0.2) < 0.05


def test_a_stamp_counts_once() -> None:
    turnaround = Turnaround()
    turnaround.observe(100.0, 100.1)
    turnaround.observe(100.0, 130.0)
    turnaround.observe(0.0, 131.0)
    assert turnaround.at(100.1) == 100.1 - 100.0


def test_figures_of_this_process_are_known() -> None:
    size_bytes, cpu_s = tree_figures(os.getpid())
    assert size_bytes > 1 << 20 and cpu_s > 0
    assert DeviceMeter([]).read(0.0).bytes > 1 << 20
    assert DeviceMeter(["node/gpu:99"]).read(0.0).bytes > 1 << 20, "without such a GPU the processes count"


def test_devices_are_read_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(100, 10.0), (200, 11.0), (300, 15.0)])
    monkeypatch.setattr(meter, "tree_figures", lambda pid: next(readings))
    devices = DeviceMeter([], cores=2)
    assert devices.read(5.0) == (100, 0.0), "nothing is known of the time before"
    assert devices.read(5.9) == (100, 0.0)
    assert devices.read(6.0) == (200, 0.5), "one second of CPU in one second on two cores"
    assert devices.read(7.0) == (300, 1.0), "never above full"


def test_figures_count_from_ready_on() -> None:
    figures = Figures()
    figures.start(2, 50.0)
    figures.occupancy.change(1, 50.0)
    load = figures.load(1, 3, 9, 52.0)
    assert (load.busy_s, load.fill_s, load.executing, load.waiting, load.progress) == (2.0, 1.0, 1, 3, 9)
    assert load.sent_at == 52.0


@given(st.integers(1, 512), st.integers(0, 10**6), st.floats(0.1, 1.0))
def test_less_room_is_never_none_and_no_limit_stays_none(slots: int, tokens: int, share: float) -> None:
    cut = cut_capacity(Capacity(slots, tokens), share)
    assert 1 <= cut.slots <= slots and cut.kv_tokens <= tokens
    assert (cut.kv_tokens == 0) == (tokens == 0)
