"""Two runs on one pool that another program serves: a real vLLM server, loaded once."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from run_support import errors, output, start, summary, write_rows

import penstock

DOCWRITER = Path(penstock.__file__).parent / "models" / "docwriter"
LOAD_LIMIT_S = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def service(tmp_path: Path, vllm_python: str) -> Iterator[str]:
    """The base URL of a vLLM server of one small model."""
    port, log = free_port(), tmp_path / "server.log"
    command = [vllm_python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(DOCWRITER)]
    command += ["--served-model-name", "docwriter", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enforce-eager", "--dtype", "float32"]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as words:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env=env)
    try:
        until = time.monotonic() + LOAD_LIMIT_S
        while True:
            assert server.poll() is None and time.monotonic() < until, log.read_text(errors="replace")[-3000:]
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        family = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait(timeout=30)


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_two_runs_share_one_served_pool(tmp_path: Path, service: str) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        write_rows(folder, 30)
        written = {
            "models": {"writer": {"ref": "docwriter", "engine": "openai", "base_url": service}},
            "source": {"path": "rows.jsonl"},
            "steps": [
                {
                    "generate": {
                        "model": "writer",
                        "prompt": f"Write a one-line docstring for:\ndef {folder.name}_{{{{ id }}}}(name):",
                        "output": "line",
                        "temperature": 0.0,
                        "max_tokens": 16,
                    }
                }
            ],
            "sink": {"path": "out"},
        }
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    runs = [start(folder) for folder in folders]
    for folder, process in zip(folders, runs, strict=True):
        assert process.wait(timeout=300) == 0, errors(folder)
        rows = output(folder)
        assert [row["id"] for row in rows] == list(range(30)) and all(row["line"].strip() for row in rows)
        (replica,) = summary(folder)["models"]["writer"]["replicas"]
        assert replica["rows"] == 30 and summary(folder)["status"] == "done"
