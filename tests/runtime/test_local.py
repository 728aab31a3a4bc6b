"""The local executor beyond what every executor has to do."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.errors import ConfigError, UsageError
from penstock.executors import guarded
from penstock.executors.base import Exit, Launch
from penstock.executors.local import LocalExecutor
from penstock.function_transfer import FunctionFile
from penstock.protocol.messages import EngineConfig, Hello, LoadFailed, PythonWork, Requests, Setup, WireRequest
from penstock.testing.executors import MOCK, PATIENCE_S, StartedReplica, exits, gone, parent_of, wait_for_exits

pytestmark = pytest.mark.process

PYTHON = EngineConfig("python", "python", task="python")
SENT = PythonWork(("__main__:<lambda>",))


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor()
    yield executor
    executor.close()


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Launch]:
    def launch(config: EngineConfig = MOCK, **fields: object) -> Launch:
        return Launch("writer-0", config, tmp_path / "logs" / "writer-0.log", **fields)  # type: ignore[arg-type]

    return launch


def test_the_cause_comes_first_in_the_tail(executor: LocalExecutor, launch: Callable[..., Launch]) -> None:
    config = EngineConfig("mock", "mock:x", engine_options={"oom_over_tokens": 1})
    replica = StartedReplica(executor.start(launch(config), 0)).make_ready(config)
    replica.send(Requests([WireRequest(1, 1, "one two three")]))
    (end,) = wait_for_exits(executor, 1)
    assert end.status == 1
    assert end.tail.startswith("out of memory: 19 tokens executing, the limit is 1")
    assert len(end.tail.encode()) <= 4096
    replica.channel.close()


def test_a_log_is_appended_to_and_the_tail_is_of_this_start(
    executor: LocalExecutor, launch: Callable[..., Launch]
) -> None:
    one = launch()
    one.log.parent.mkdir()
    one.log.write_text("ValueError: of the last run\n")
    replica = StartedReplica(executor.start(one, 0)).make_ready()
    executor.kill("writer-0", 0)
    (end,) = wait_for_exits(executor, 1)
    assert "of the last run" not in end.tail
    assert one.log.read_text().startswith("ValueError: of the last run\n")
    replica.channel.close()


def test_variables_are_set_before_anything_is_imported(
    executor: LocalExecutor, launch: Callable[..., Launch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "binding_seen.py").write_text(
        "import os\nSEEN = os.environ.get('OMP_NUM_THREADS')\n"
        "def seen(row):\n    return {'threads': SEEN, 'cores': sorted(os.sched_getaffinity(0))}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    core = min(os.sched_getaffinity(0))
    config = EngineConfig("python", "python", task="python", cores=(core,))
    one = launch(config, work=PythonWork(("binding_seen:seen",)), env={"OMP_NUM_THREADS": "3"})
    replica = StartedReplica(executor.start(one, 0)).make_ready(config, work=one.work)
    assert replica.ask({}).items[0].value == {"threads": "3", "cores": [core]}
    replica.channel.close()


def test_another_interpreter_gets_this_penstock(
    executor: LocalExecutor, launch: Callable[..., Launch], tmp_path: Path
) -> None:
    other = tmp_path / "other-python"
    other.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    replica = StartedReplica(executor.start(launch(python=str(other)), 0)).make_ready()
    assert replica.ask("hello").items[0].code == ""
    replica.channel.close()


def test_an_interpreter_that_is_not_there(executor: LocalExecutor, launch: Callable[..., Launch]) -> None:
    with pytest.raises(ConfigError, match="no such interpreter '/nowhere/python'"):
        executor.start(launch(python="/nowhere/python"), 0)


def test_an_interpreter_that_is_none(executor: LocalExecutor, launch: Callable[..., Launch], tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("not a program")
    broken.chmod(0o755)
    replica = StartedReplica(executor.start(launch(python=str(broken)), 0))
    (end,) = wait_for_exits(executor, 1)
    assert end.status == 127
    assert end.tail.startswith("penstock host: OSError: [Errno 8] Exec format error")
    replica.channel.close()


def test_a_log_that_cant_be_written(executor: LocalExecutor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't write the log"):
        executor.start(Launch("writer-0", MOCK, tmp_path / "file" / "log"), 0)


def test_one_incarnation_starts_once(executor: LocalExecutor, launch: Callable[..., Launch]) -> None:
    replica = StartedReplica(executor.start(launch(), 0))
    with pytest.raises(UsageError, match="incarnation 0 before"):
        executor.start(launch(), 0)
    replica.channel.close()


def test_a_guardian_that_was_killed_is_an_exit(executor: LocalExecutor, launch: Callable[..., Launch]) -> None:
    replica = StartedReplica(executor.start(launch(), 0)).make_ready()
    os.kill(replica.started.keeper_pid, signal.SIGKILL)
    (end,) = wait_for_exits(executor, 1)
    assert end.status == -signal.SIGKILL
    replica.channel.close()


# ---------------------------------------------------------------- functions by value


def test_a_closure_reaches_its_worker_and_the_next_one(launch: Callable[..., Launch]) -> None:
    factor, work = 7, PythonWork(("", "__main__:<lambda>"))
    executor = LocalExecutor(FunctionFile([None, lambda row: {"y": row["x"] * factor}]))
    for incarnation in range(2):
        replica = StartedReplica(executor.start(launch(PYTHON, work=work), incarnation)).make_ready(PYTHON, work=work)
        assert replica.ask({"x": 6}, step=1).items[0].value == {"y": 42}
        executor.kill("writer-0", incarnation)
        assert wait_for_exits(executor, 1)[0].incarnation == incarnation
        replica.channel.close()
    executor.close()


def test_what_a_function_prints_is_in_the_log(launch: Callable[..., Launch]) -> None:
    executor = LocalExecutor(FunctionFile([lambda row: print("from the worker")]))
    one = launch(PYTHON, work=SENT)
    replica = StartedReplica(executor.start(one, 0)).make_ready(PYTHON, work=SENT)
    assert replica.ask({}).items[0].code == ""
    assert "from the worker" in one.log.read_text()
    replica.channel.close()
    executor.close()


def test_a_function_whose_module_the_worker_lacks_says_so(launch: Callable[..., Launch], tmp_path: Path) -> None:
    module = types.ModuleType("only_here")
    exec_module = "def double(x):\n    return 2 * x\n"
    (tmp_path / "only_here.py").write_text(exec_module)
    spec = importlib.util.spec_from_file_location("only_here", tmp_path / "only_here.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module)
    module.__spec__ = spec
    sys.modules["only_here"] = module
    try:
        executor = LocalExecutor(FunctionFile([lambda row: module.double(row["x"])]))
    finally:
        del sys.modules["only_here"]
    replica = StartedReplica(executor.start(launch(PYTHON, work=SENT), 0))
    replica.next(Hello)
    replica.send(Setup("writer-0", PYTHON, work=SENT))
    failed = replica.next(LoadFailed)
    assert isinstance(failed, LoadFailed)
    assert "can't load the functions of the steps: ModuleNotFoundError: No module named 'only_here'" in failed.message
    replica.channel.close()
    executor.close()


WITH_A_CHILD = """
import os, subprocess, sys
def child(row):
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    return {"child": started.pid}
"""


@pytest.fixture(params=["guardian", "keeper"])
def stopped(
    executor: LocalExecutor,
    launch: Callable[..., Launch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[list[int]]:
    """A replica whose guardian, or its keeper, is stopped: the numbers of keeper, guardian, host, and a child that has
    left the host's session."""
    (tmp_path / "with_a_child.py").write_text(WITH_A_CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    work = PythonWork(("with_a_child:child",))
    replica = StartedReplica(executor.start(launch(PYTHON, work=work), 0))
    replica.make_ready(PYTHON, work=work)
    assert replica.hello is not None
    child = replica.ask({}).items[0].value["child"]
    above = {"keeper": replica.started.keeper_pid, "guardian": parent_of(replica.hello.pid)}
    os.kill(above[request.param], signal.SIGSTOP)
    yield [*above.values(), replica.hello.pid, child]
    replica.channel.close()


def test_a_guardian_that_is_stopped_goes_on_when_its_replica_is_to_end(
    executor: LocalExecutor, stopped: list[int]
) -> None:
    os.kill(stopped[2], signal.SIGKILL)
    executor.kill("writer-0", 0)
    (end,) = wait_for_exits(executor, 1)
    assert end.status == -9
    executor.close()
    assert all(map(gone, stopped))


def test_what_is_below_a_guardian_that_hangs_is_ended_all_the_same(
    executor: LocalExecutor, stopped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "KILL_LIMIT_S", 0.0)
    monkeypatch.setattr(signal, "SIGCONT", signal.SIGURG)  # as of a guardian that waits for a disk
    executor.kill("writer-0", 0)
    (end,) = wait_for_looks(executor)
    assert end.status == -9
    executor.close()
    assert all(map(gone, stopped))


def wait_for_looks(executor: LocalExecutor) -> list[Exit]:
    """As the runtime does for a replica that it has killed: it looks, whether or not there is something to see."""
    until_s = time.monotonic() + PATIENCE_S
    found: list[Exit] = []
    while not found and time.monotonic() < until_s:
        found = exits(executor)
        time.sleep(0.01)
    return found
