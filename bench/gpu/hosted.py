"""Penstock's engines through their host, and the libraries by themselves, each in a process group of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.protocol.messages import Answer, EngineConfig, Ready, Request, requests_message
from penstock.protocol.options import Sampling
from penstock.testing.harness import HostHarness

LOAD_S = 900.0
PASS_S = 900.0


@contextmanager
def hosted(config: EngineConfig, folder: Path, env: dict[str, str]) -> Iterator[tuple[HostHarness, Ready]]:
    """A loaded host. Its whole process group is gone at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    host = HostHarness(folder / "host.log", env=env)
    try:
        yield host, host.load(config, patience_s=LOAD_S)
    finally:
        kill_group(host.process.pid)
        host.__exit__(None, None, None)


def one_pass(host: HostHarness, prompts: Sequence[Any], samplings: Sequence[Sampling]) -> tuple[list[Answer], float]:
    """All requests at once; the answers in their order, and the seconds from the first byte sent to the last answer."""
    first = host._next_id
    host._next_id += len(prompts)
    items = [
        Request(prompt, sampling, first + place, 1, first + place)
        for place, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True))
    ]
    began_s = time.monotonic()
    host.send(requests_message(items))
    answers = {answer.id: answer for answer in host.answers(len(items), PASS_S)}
    return [answers[item.id] for item in items], time.monotonic() - began_s


def bare(asked: dict[str, Any], folder: Path, env: dict[str, str]) -> dict[str, Any]:
    """What the library itself gives, with bench/gpu/bare.py."""
    folder.mkdir(parents=True, exist_ok=True)
    question, reply, log = folder / "asked.json", folder / "reply.json", folder / "bare.log"
    question.write_text(json.dumps(asked))
    command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(question), str(reply)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=file, stderr=file, start_new_session=True)
        try:
            if process.wait(LOAD_S + PASS_S) != 0:
                raise RuntimeError(f"{asked['library']} failed:\n{log.read_text(errors='replace')[-3000:]}")
        finally:
            kill_group(process.pid)
            process.wait()
    found: dict[str, Any] = json.loads(reply.read_text())
    return found


def kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass
