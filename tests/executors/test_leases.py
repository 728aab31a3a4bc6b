"""GPUs of one machine among several runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from penstock.executors.leases import DeviceLeases, LeaseTaken


def test_what_one_holds_no_other_takes(tmp_path: Path) -> None:
    ours, other = DeviceLeases(tmp_path), DeviceLeases(tmp_path)
    ours.take(["GPU-a", "GPU-b"], "the run in out/1 (process 7)")
    ours.take(["GPU-a"], "again")  # what we hold is ours
    assert other.held_by_others(["GPU-a", "GPU-c"]) == {"GPU-a": "the run in out/1 (process 7)"}
    assert ours.held_by_others(["GPU-a"]) == {}
    with pytest.raises(LeaseTaken, match=r"GPU-b was just taken by the run in out/1 \(process 7\)"):
        other.take(["GPU-c", "GPU-b"], "the run in out/2")
    assert ours.held_by_others(["GPU-c"]) == {}  # all or nothing
    ours.release()
    other.take(["GPU-a", "GPU-b"], "the run in out/2")
    assert ours.held_by_others(["GPU-a"]) == {"GPU-a": "the run in out/2"}
    other.release()


@pytest.mark.process
def test_a_lease_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from penstock.executors.leases import DeviceLeases\n"
        "DeviceLeases(Path(sys.argv[1])).take(['GPU/x'], 'a run')\nprint('held', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        ours = DeviceLeases(tmp_path)
        assert ours.held_by_others(["GPU/x"]) == {"GPU/x": "a run"}
        process.kill()
        process.wait()
        assert ours.held_by_others(["GPU/x"]) == {}
        ours.take(["GPU/x"], "ours")
        ours.release()
