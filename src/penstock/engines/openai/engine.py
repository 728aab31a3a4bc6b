"""The engine for OpenAI-compatible services: one or several base URLs, each request to the least busy one.

An asyncio loop in a thread of its own holds one task per request. Failures of the service (429, 5xx, a broken
connection, an empty body) are tried again with exponential backoff, jitter and Retry-After, within a budget; what the
service refuses (400, 401, 403, 404, 413, 422) is the request's own failure and is not tried again.

The API key is read from the environment (`OPENAI_API_KEY`, or the variable that `api_key_env` names) and is never in
a config, a message or a log; error messages hold the service's own words with the key and the prompt taken out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from penstock.distribution import install_command
from penstock.engines.base import Emit, EngineLoadError
from penstock.engines.chat_options import check_options, option
from penstock.engines.loop_thread import LoopThread
from penstock.engines.openai.calls import Calls
from penstock.engines.openai.endpoints import Endpoint, Endpoints, RetryBudget
from penstock.engines.openai.failures import CallFailed, Misdelivered, OutsizedReply
from penstock.engines.openai.info import INFO
from penstock.engines.openai.request import Api, address, variable_of
from penstock.engines.openai.retry import Backoff, backoff_s
from penstock.engines.sampling import RowFault
from penstock.protocol.messages import Answer, Capacity, EngineConfig, Request
from penstock.redaction import shown_url

__all__ = ["OpenAIEngine"]

OPTIONS = (
    "api",
    "api_key_env",
    "concurrency",
    "extra_body",
    "headers_env",
    "max_tokens_field",
    "patience_s",
    "retries",
    "send_seed",
    "start_patience_s",
    "timeout_s",
)
CONNECT_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 600.0
RETRIES = 5
PATIENCE_S = 600.0
"""How long a request waits altogether for a service that is busy or away before it is given back."""
START_PATIENCE_S = 20.0
"""How long a service may take to come up before the engine fails to load; 0: it is not asked at all."""
START_PAUSE_S = 1.0
PULSE_S = 1.0


class OpenAIEngine:
    """See penstock.engines.base.Engine."""

    def __init__(self) -> None:
        self._worker = LoopThread("openai")
        self._progress = 0

    def load(self, config: EngineConfig, emit: Emit, note: Callable[[str], None]) -> Capacity:
        aiohttp = _aiohttp()
        options = config.engine_options
        check_options(options, OPTIONS, "openai")
        if not config.base_urls:
            raise EngineLoadError(
                "the openai engine needs base_url, for instance http://localhost:8000/v1", "bad_model"
            )
        concurrency = _concurrency(options)
        self._emit = emit
        self._retries = option(options, "retries", int, RETRIES)
        self._api = Api(config.ref, options, _key(options), config.base_urls)
        self._backoff = Backoff()
        self._endpoints = Endpoints(_checked(config.base_urls), concurrency)
        self._budget = RetryBudget()
        self._patience_s = float(option(options, "patience_s", (int, float), PATIENCE_S))
        total_s = float(option(options, "timeout_s", (int, float), TOTAL_TIMEOUT_S))
        self._timeout = aiohttp.ClientTimeout(total=total_s, connect=CONNECT_TIMEOUT_S)
        # The proxy of the environment is for services elsewhere, not for one on this machine.
        self._proxied = not all(_is_loopback(url) for url in config.base_urls)
        note(f"{config.ref} at {', '.join(map(shown_url, config.base_urls))}")
        self._worker.start()
        self._loop = self._worker.loop
        self._worker.result(self._open(aiohttp))
        start_s = float(option(options, "start_patience_s", (int, float), START_PATIENCE_S))
        try:
            self._worker.result(self._find_service(config.base_urls, start_s, note))
        except EngineLoadError:
            self.close()
            raise
        facts: dict[str, str | int | float] = {"base_urls": len(config.base_urls), "api": self._api.name}
        slots = concurrency * len(config.base_urls)
        return Capacity(slots=slots, max_model_len=config.max_model_len or 0, facts=facts)

    def submit(self, requests: Sequence[Request]) -> None:
        self._loop.call_soon_threadsafe(self._begin, list(requests))

    def abort(self, ids: Sequence[int]) -> None:
        self._worker.cancel(ids)

    def progress(self) -> int:
        return self._progress

    def close(self) -> None:
        if self._worker.is_alive():
            self._worker.cancel_all()
            self._worker.result(self._calls.close())
            self._worker.close()

    async def _open(self, aiohttp: Any) -> None:
        self._changed = asyncio.Event()
        self._calls = Calls(aiohttp, self._api, timeout=self._timeout, trust_env=self._proxied)
        self._pulse()

    async def _find_service(self, urls: Sequence[str], patience_s: float, note: Callable[[str], None]) -> None:
        """Return once any of the services answers anything. Raises EngineLoadError after `patience_s`."""
        until_s = self._loop.time() + patience_s
        while patience_s > 0:
            causes = await asyncio.gather(*(self._why_away(url) for url in urls))
            if not all(causes):
                return
            message = "no service responds: " + "; ".join(causes)
            if self._loop.time() >= until_s:
                raise EngineLoadError(f"{message} (waited {patience_s:g} s); start it, or correct base_url")
            note(f"{message}; retrying for {patience_s:g} s")
            await asyncio.sleep(START_PAUSE_S)

    async def _why_away(self, url: str) -> str:
        """Why the service can't be reached; "" if it answers, even with a refusal."""
        import aiohttp

        try:
            timeout = aiohttp.ClientTimeout(total=CONNECT_TIMEOUT_S)
            # Its connection is not kept: nobody looks at what comes back.
            session = self._calls.connections(url).once()
            async with session.get(address(url, "/models"), timeout=timeout, allow_redirects=False):
                return ""
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError):
            return ""
        except TimeoutError:
            return f"{shown_url(url)} (nothing for {CONNECT_TIMEOUT_S:g} s)"
        except (aiohttp.ClientError, OSError) as error:
            cause = getattr(error, "os_error", error)
            number = getattr(cause, "errno", None) or 0
            return (
                f"{shown_url(url)} ({os.strerror(number) if number > 0 else getattr(cause, 'strerror', None) or cause})"
            )

    def _pulse(self) -> None:
        """Progress is the loop's: a service may think for minutes, and each request has its own time limit."""
        self._progress += 1
        self._loop.call_later(PULSE_S, self._pulse)

    def _begin(self, requests: list[Request]) -> None:
        for each in requests:
            self._worker.begin(each.id, self._answer(each))

    async def _answer(self, request: Request) -> None:
        """Answer one request, whatever happens to it, unless it is cancelled."""
        try:
            answer = await self._ask(request)
        except RowFault as fault:
            answer = fault.answer(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of this engine must not leave the request without an answer
            answer = RowFault("retry", f"{type(error).__name__} while calling the service").answer(request)
        if self._worker.end(request.id):
            self._progress += 1
            self._emit([answer])

    async def _ask(self, request: Request) -> Answer:
        """Send a request until it is answered. Raises RowFault."""
        body = self._api.body(request)
        until_s = self._loop.time() + self._patience_s
        self._budget.first_try()
        failures: list[CallFailed] = []
        new = False
        while True:
            endpoint = await self._pick(until_s, failures)
            try:
                answer = await self._calls.send(endpoint.url, body, request, new=new)
            except Misdelivered as failure:
                new = True
                if failure.at_once:
                    continue
                failures.append(failure.bare())
            except CallFailed as failure:
                failures.append(failure.bare())
                self._endpoints.failed(endpoint, self._loop.time(), failure)
            else:
                self._endpoints.answered(endpoint)
                return answer
            finally:
                self._endpoints.done(endpoint)
                self._changed.set()
            self._give_up(failures)
            # Who could not reach a service waits in _pick until it is back or another one has room.
            if failures[-1].kind != "away":
                await asyncio.sleep(backoff_s(len(failures) - 1, failures[-1].retry_after_s, self._backoff))

    def _give_up(self, failures: Sequence[CallFailed]) -> None:
        """Raises RowFault("retry") when calls broke too often. Waiting for a busy or absent service costs no try."""
        if failures[-1].kind != "broken":
            return
        if sum(isinstance(failure, OutsizedReply) for failure in failures) > 1:
            raise RowFault("refused", f"{failures[-1]}; sent twice (see docs/engines.md: limits of a reply)")
        broken = sum(failure.kind == "broken" for failure in failures)
        if broken > self._retries or not self._budget.allows_retry():
            raise RowFault("retry", f"{failures[-1]} (tried {len(failures)} times)")

    async def _pick(self, until_s: float, failures: Sequence[CallFailed]) -> Endpoint:
        """An endpoint that takes a request, as soon as there is one. Raises RowFault("retry") after `until_s`."""
        while True:
            now_s = self._loop.time()
            if now_s > until_s:
                cause = failures[-1] if failures else "every endpoint is busy"
                raise RowFault("retry", f"{cause} (waited {self._patience_s:g} s)")
            if (endpoint := self._endpoints.pick(now_s)) is not None:
                return endpoint
            self._changed.clear()
            waits_s = [until_s - now_s + 0.01, self._endpoints.next_s(now_s)]
            try:
                async with asyncio.timeout(min(wait for wait in waits_s if wait is not None)):
                    await self._changed.wait()
            except TimeoutError:
                pass


def _aiohttp() -> Any:
    try:
        import aiohttp
    except ImportError as error:
        raise EngineLoadError(
            f"the openai engine needs aiohttp: {install_command('openai')}", "missing_dependency"
        ) from error
    return aiohttp


def check_model(options: Mapping[str, Any], urls: Sequence[str]) -> None:
    """Refuse what no environment could make right, before anything is loaded. Raises EngineLoadError."""
    check_options(options, OPTIONS, "openai")
    Api("", {**options, "headers_env": None}, None)
    _concurrency(options)
    option(options, "retries", int, RETRIES)
    for name in ("patience_s", "start_patience_s", "timeout_s"):
        option(options, name, (int, float), 0)
    names = option(options, "headers_env", dict, {})
    for place, name in [
        ("api_key_env", options.get("api_key_env")),
        *(("headers_env", each) for each in names.values()),
    ]:
        if name is not None and not (isinstance(name, str) and name.isidentifier()):
            variable_of(name, place)
    _checked(urls)


def _concurrency(options: Mapping[str, Any]) -> int:
    concurrency: int = option(options, "concurrency", int, INFO.slots)
    if concurrency < 1:
        raise EngineLoadError(f"engine_options: concurrency is {concurrency}; it must be at least 1", "bad_model")
    return concurrency


def _checked(urls: Sequence[str]) -> list[str]:
    for url in urls:
        try:
            parts = urlsplit(url)
            valid = parts.port is None or parts.port > 0
            (parts.hostname or "").encode("idna")  # as it is looked up: a..b is none
        except ValueError:
            valid = False
        if not valid:
            raise EngineLoadError(f"base_url {shown_url(url)} is not a valid URL (host or port)", "bad_model")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineLoadError("base_url must start with http:// or https:// and have a host", "bad_model")
        if "@" in parts.netloc:
            raise EngineLoadError(
                f"base_url of {parts.hostname} contains a password; pass keys with api_key_env", "bad_model"
            )
    return list(urls)


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def _key(options: dict[str, Any]) -> str | None:
    """The key from the environment. A variable that is named but not set is an error; the usual one may be unset."""
    named = option(options, "api_key_env", str, None)
    if named:
        return variable_of(named, "api_key_env")
    return os.environ.get("OPENAI_API_KEY") or None
