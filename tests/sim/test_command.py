"""The command that replays a seed, and what a failing one says."""

from __future__ import annotations

import pytest

from penstock.core.dispatch.replica import Replica
from penstock.sim.__main__ import main
from penstock.sim.run import SeedFailed, run_seed
from penstock.sim.scenario import draw_scenario
from penstock.sim.tally import SOMETIMES, Coverage
from penstock.sim.trace import Trace


def test_one_seed_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "2", "--rows", "5", "--mode", "liveness", "--trace"]) == 0
    said = capsys.readouterr().out
    assert "> Tick(" in said
    assert "< ReadRows(" in said
    assert "seed 2: " in said
    assert "1 seeds, 0 failed" in said


def test_many_seeds_with_a_tally(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0:4", "--rows", "5"]) == 0
    said = capsys.readouterr().out
    assert "ended: done" in said
    assert "never  " in said
    assert "4 seeds, 0 failed" in said


def test_a_failing_seed_says_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Replica, "take_all", lambda self: [])
    with pytest.raises(SeedFailed) as caught:
        for seed in range(100):
            run_seed(seed, rows=10)
    command = str(caught.value).splitlines()[-1]
    assert command.startswith("Replay: python -m penstock.sim --seed ")
    assert main(command.split("penstock.sim ")[1].split()) == 1
    assert str(caught.value) in capsys.readouterr().err


def test_modes_alternate_unless_one_is_asked_for() -> None:
    assert [draw_scenario(seed).mode for seed in (0, 1)] == ["liveness", "safety"]
    assert draw_scenario(0, mode="safety").mode == "safety"


def test_liveness_ends_and_a_scenario_is_drawn_alike_twice() -> None:
    assert draw_scenario(11) == draw_scenario(11)
    assert run_seed(4, mode="liveness").status != ""


def test_equal_runs_have_equal_digests_and_others_have_not() -> None:
    digests = []
    for seed in (5, 5, 6):
        trace = Trace()
        run_seed(seed, rows=10, trace=trace)
        digests.append(trace.digest())
    assert digests[0] == digests[1] != digests[2]


def test_the_tally_names_what_never_happened() -> None:
    tally, other = Coverage(), Coverage()
    tally.hit("crash", 2)
    other.hit("crash")
    other.hit("hang", 0)
    tally.add(other)
    assert tally.hits == {"crash": 3}
    assert tally.never() == [name for name in SOMETIMES if name != "crash"]
