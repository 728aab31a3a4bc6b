"""kill -9 in the middle of a run, then the same command: how many requests are answered a second time.

A service on loopback counts what it is asked. Reach: no more than were in flight, and one commit interval.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from common import Figure, main, run_pipeline, say, work_folder, write_jsonl

CONCURRENCY, ANSWER_S, COMMIT_S = 64, 0.05, 1.0


class Service:
    """Answers every request after a while, and counts how often it was asked each prompt."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self.url = ""
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    async def _answer(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"data": []})
        prompt = (await request.json())["messages"][0]["content"]
        self.asked[prompt] = self.asked.get(prompt, 0) + 1
        number = sum(self.asked.values())
        await asyncio.sleep(ANSWER_S)
        message = {"role": "assistant", "content": f"answer to {prompt}"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return web.json_response({"id": f"chatcmpl-{number}", "choices": choices})


def pipeline(source: Path, url: str, steps: int) -> dict[str, Any]:
    asked = [
        {"generate": {"model": "writer", "prompt": f"{step}/{{{{ text }}}}", "output": f"answer{step}"}}
        for step in range(steps)
    ]
    model = {"ref": "small", "engine": "openai", "base_url": url, "engine_options": {"concurrency": CONCURRENCY}}
    return {
        "models": {"writer": model},
        "source": {"path": str(source)},
        "steps": asked,
        "sink": {"path": "unused"},
        "commit_every_s": COMMIT_S,
    }


def kill_at_half(folder: Path, made: dict[str, Any], service: Service, total: int) -> float:
    """Start the run and kill it when half of the requests were asked; requests a second until then."""
    file, out = folder / "run.yaml", folder / "run.out"
    file.write_text(json.dumps(made))
    command = [sys.executable, "-m", "penstock.cli", "run", str(file), "--out", str(out), "--display", "none"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began = 0.0
    while sum(service.asked.values()) < total // 2:
        began = began or (time.monotonic() if service.asked else 0.0)
        time.sleep(0.002)
    rate = total // 2 / (time.monotonic() - began)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return rate


def measure(arguments: argparse.Namespace) -> list[Figure]:
    figures = []
    for steps in (1, 3):
        service = Service()
        with work_folder() as folder:
            source = write_jsonl(folder / "rows.jsonl", ({"text": f"row {n}"} for n in range(arguments.rows)))
            made = pipeline(source, service.url, steps)
            total = arguments.rows * steps
            rate = kill_at_half(folder, made, service, total)
            run = run_pipeline(folder, made)
        if run.summary["rows"]["out"] != arguments.rows or len(service.asked) != total:
            raise SystemExit(f"rows are missing: {run.summary['rows']}, {len(service.asked)} of {total} prompts")
        again = sum(service.asked.values()) - total
        allowed = CONCURRENCY + rate * COMMIT_S
        say(f"{steps} steps: {rate:.0f} requests/s, {again} asked again")
        figures.append(
            Figure(
                "kill at half",
                f"{steps} step{'s' * (steps > 1)}: asked again, of {total:,}",
                str(again),
                f"<= {allowed:.0f} (in flight and 1 s of commits)",
                again <= allowed,
            )
        )
    return figures


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], rows=6_000)
