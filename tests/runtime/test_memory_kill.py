"""The kernel ends a host for want of memory: the replica uses less of its room from then on, and no row is blamed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_support import catch, committed, dead, end_of, errors, output, pipeline, processes_of, start, write_rows

from command_server import Command

pytestmark = pytest.mark.process

GROUP = f"penstock-test-{os.getpid()}"
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@pytest.fixture
def starve() -> Iterator[Callable[[int], None]]:
    """Gives a process no page of memory more than it has: the kernel ends it at the next one that it needs."""
    top, limit = (V1, "memory.limit_in_bytes") if (V1 / "tasks").exists() else (V2, "memory.max")
    group = top / GROUP
    try:
        group.mkdir()
        if not (group / limit).exists():
            raise OSError("no memory controller")
        (group / limit).write_text("65536")
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"NO CONTROL GROUP of memory can be made here: {error}")
    yield lambda pid: (group / "cgroup.procs").write_text(str(pid)) and None
    group.rmdir()


def test_a_host_that_the_kernel_ends_for_want_of_memory(tmp_path: Path, starve: Callable[[int], None]) -> None:
    write_rows(tmp_path, 300)
    growing = {"prompt": "{{ question }}", "output": "answer", "max_tokens": "{{ 40 * id + 1 }}"}  # in memory as well

    def begin(slower: int) -> Command:
        pipeline(tmp_path, [{"generate": {"model": "writer", **growing}}], ms_per_row=100 * slower, slots=8, replicas=1)
        return start(tmp_path)

    process = catch(tmp_path, begin, lambda: 20 < committed(tmp_path) < 150, "some commits")
    starve(min(processes_of(tmp_path)))
    process.send_signal(signal.SIGCONT)
    assert end_of(process, tmp_path) == 0, errors(tmp_path)
    assert len(output(tmp_path)) == 300 and not dead(tmp_path)
    log = (tmp_path / "out" / "logs" / "coordinator.log").read_text()
    assert "ran out of memory; now limited to 75% of its capacity" in log
    assert "was killed by SIGKILL: out of memory: the kernel has just ended a process of this machine" in log
