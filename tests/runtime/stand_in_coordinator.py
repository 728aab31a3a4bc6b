"""Starts one replica whose host has children and shared memory, prints their process ids, and waits to be killed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from penstock.executors.base import Launch
from penstock.executors.local import LocalExecutor
from penstock.protocol.channel import Channel
from penstock.protocol.messages import EngineConfig, Hello, PythonWork
from penstock.protocol.wire import coordinator_decoder

WITH_CHILDREN = """
import os, subprocess, sys, time
from multiprocessing import shared_memory
def stay(row):
    global shared
    shared = shared_memory.SharedMemory(create=True, size=1024)
    with open(row["file"] + "-shared", "w") as file:
        file.write(shared.name)
    plain = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    detached = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork() == 0:
            with open(row["file"], "w") as file:
                file.write(str(os.getpid()))
            time.sleep(3600)
        os._exit(0)
    os.waitpid(middle, 0)
    while not os.path.exists(row["file"]) or not open(row["file"]).read():
        time.sleep(0.01)
    return {"pids": [plain.pid, detached.pid, int(open(row["file"]).read())]}
"""


def main(folder: Path) -> None:
    from penstock.protocol.messages import Answers, Ready, Requests, Setup, WireRequest

    (folder / "functions_with_children.py").write_text(WITH_CHILDREN)
    sys.path.insert(0, str(folder))
    executor = LocalExecutor()
    work = PythonWork(("functions_with_children:stay",))
    config = EngineConfig("python", "python", task="python")
    started = executor.start(Launch("python-0", config, folder / "log", work=work), 0)
    channel = Channel(started.connection, coordinator_decoder())
    while not channel.closed:
        for message in channel.receive():
            if isinstance(message, Hello):
                channel.send(Setup("python-0", config, work))
                host = message.pid
            elif isinstance(message, Ready):
                channel.send(Requests([WireRequest(1, 1, {"file": str(folder / "daemon")})]))
            elif isinstance(message, Answers) and message.items:
                print(started.keeper_pid, host, *message.items[0].value["pids"], flush=True)
                time.sleep(3600)
        channel.flush()
        time.sleep(0.01)
    print("the host ended:", (folder / "log").read_text())


if __name__ == "__main__":
    os.close(0)  # a coordinator started by a service has no standard input
    main(Path(sys.argv[1]))
