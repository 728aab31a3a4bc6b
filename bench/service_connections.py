"""What a request to a service costs its client: connections that are kept, and one connection per request.

A connection is kept where the service repeats the request's id (design/0016). The service answers at once and runs in a
process of its own; CPU time is the client's.

python bench/service_connections.py [--requests 5000] [--concurrency 64]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from common import Figure, main, say
from penstock.engines.openai.engine import OpenAIEngine
from penstock.protocol.messages import Answer, EngineConfig, Request

CHOICE = {"index": 0, "message": {"content": "fine"}, "finish_reason": "stop"}


def serve(repeats_id: bool) -> None:
    """A service; prints its port, and runs until it is ended."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closes = False
        try:
            while not closes:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = (line.partition(": ") for line in head.decode().split("\r\n"))
                headers = {name.lower(): value for name, _, value in lines}
                await reader.readexactly(int(headers["content-length"]))
                closes = headers.get("connection") == "close"
                name = {"id": f"chatcmpl-{headers['x-request-id']}"} if repeats_id else {}
                body = json.dumps({**name, "choices": [CHOICE]}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(accepted, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(run())


def ask(port: int, count: int, concurrency: int) -> tuple[float, float]:
    """Seconds, and seconds of this process's CPU time, for so many requests."""
    left = threading.Semaphore(0)

    def answered(answers: Sequence[Answer]) -> None:
        for answer in answers:
            if answer.code:
                raise SystemExit(answer.message)
            left.release()

    engine = OpenAIEngine()
    options = {"concurrency": concurrency, "start_patience_s": 0}
    config = EngineConfig("openai", "m", base_urls=(f"http://127.0.0.1:{port}/v1",), engine_options=options)
    engine.load(config, answered, lambda note: None)
    try:
        for warm in (concurrency, count):
            began_s, began_cpu_s = time.monotonic(), time.process_time()
            engine.submit([Request(f"question {number}", id=number, attempt=1) for number in range(warm)])
            for _ in range(warm):
                left.acquire()
        return time.monotonic() - began_s, time.process_time() - began_cpu_s
    finally:
        engine.close()


def measure(options: argparse.Namespace) -> list[Figure]:
    figures = []
    for repeats_id in (True, False):
        code = f"import service_connections as here; here.serve({repeats_id})"
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) as service:
            assert service.stdout is not None
            took_s, cpu_s = ask(int(service.stdout.readline()), options.requests, options.concurrency)
            service.terminate()
        what = "connections that are kept" if repeats_id else "one connection per request"
        say(f"{what}: {options.requests / took_s:,.0f} requests/s")
        figures.append(Figure("service_connections", what, f"{cpu_s / options.requests * 1e3:.2f} ms CPU/request"))
    return figures


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], requests=5_000, concurrency=64)
