"""A service on loopback that misbehaves as told: one script entry per request, then it behaves."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

from aiohttp import web

Act = Callable[[web.Request, dict[str, Any]], Any]


def good(text: str = "fine", tokens_out: int = 3, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": tokens_out}}


class Service:
    """Runs in a thread of its own. `acts`: a status, (status, body), (status, body, headers), "hang", "drop", or
    "echo", which answers with the prompt.

    identity: what an echo says of which request it belongs to

        ids     an id of its own
        none    nothing
        same    one id for all
        empty   an id without a character
        mark    an id that holds the request's X-Request-Id, as vLLM gives it
        header  the request's X-Request-Id as a header, and no id
    """

    def __init__(self, acts: list[Any] | None = None, *, port: int = 0, identity: str = "ids") -> None:
        self.acts = list(acts or [])
        self.identity = identity
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.now = 0
        self.most = 0
        self.release = threading.Event()
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Service:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._act(request)
        finally:
            self.now -= 1

    async def _act(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        act = self.acts.pop(0) if self.acts else 200
        if act == "hang":
            while not self.release.is_set():
                await asyncio.sleep(0.01)
            act = 200
        if act == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if act == "echo":
            act = self._echo(f"answer to {body['messages'][-1]['content']}", request.headers.get("X-Request-Id", "?"))
        status, content, headers = (*act, *(None, {})[len(act) - 1 :]) if isinstance(act, tuple) else (act, None, {})
        if content is None:
            content = good() if status == 200 else {"error": {"message": f"status {status}"}}
        text = content if isinstance(content, str) else json.dumps(content)
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")

    def _echo(self, text: str, mark: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        names = {"ids": f"chatcmpl-{len(self.bodies)}", "same": "chatcmpl", "empty": "", "mark": f"chatcmpl-{mark}"}
        reply = good(text)
        if self.identity in names:
            reply["id"] = names[self.identity]
        return 200, reply, {"X-Request-Id": mark} if self.identity == "header" else {}
