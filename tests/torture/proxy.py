"""Services behind a proxy that repeats, delays, swaps, cuts and drops replies at random: whose answer has each request?

    python tests/torture/proxy.py [--requests 100000] [--seed 1] [--concurrency 32]

Real connections on loopback, the openai engine as it is; services that repeat the request's id in a header or in the id
of the reply, that do so in half of their replies, that give ids of their own, one id for all, an empty one, or none.
Prints the tally; exit code 1 where a request got the answer to another, or none.

Swaps happen only where all replies repeat the request's id, and earlier answers come again only where ids are unique:
elsewhere no client can notice (docs/reliability.md).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from random import Random

from penstock.core.service import Asked, Connection, Reply, Service, Verdict
from penstock.engines.openai import endpoints as openai_endpoints
from penstock.engines.openai.engine import OpenAIEngine
from penstock.engines.openai.retry import Backoff
from penstock.protocol.messages import Answer, EngineConfig, Request
from penstock.testing.proxy import FaultyProxy, LoopbackServer

WEIGHTS = {"pass": 70, "delay": 8, "cut": 2, "drop": 2, "swallow": 0.3, "repeat": 8, "ask_twice": 4, "stray": 3}
MORE_WEIGHTS = {
    "mark": {"swap": 6, "earlier": 3},
    "header": {"swap": 6, "earlier": 3},
    "some": {},
    "ids": {"earlier": 3},
    "same": {},
    "empty": {},
    "none": {},
}
IDENTITIES = tuple(MORE_WEIGHTS)
REFUSED_EVERY = 20
PER_ENGINE = 500  # requests
ROUNDS = 40  # a request that the engine gives back is asked again so often, as the dispatcher does


class Echo(LoopbackServer):
    """Answers each request with its prompt after up to 5 ms, and refuses what begins with "no"."""

    def __init__(self, identity: str, seed: int) -> None:
        super().__init__()
        self._identity, self._rng, self._number = identity, Random(seed), 0

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))
                }
                request = json.loads(await reader.readexactly(int(headers["content-length"])))
                await asyncio.sleep(0.005 * self._rng.random())
                writer.write(self._reply(request["messages"][-1]["content"], headers["x-request-id"]))
                if headers.get("connection") == "close":
                    return

    def _reply(self, prompt: str, mark: str) -> bytes:
        self._number += 1
        identity = self._identity
        if identity == "some":
            identity = self._rng.choice(("mark", "none"))
        if prompt.startswith("no"):
            status, body = "400 Bad Request", {"error": {"message": f"refused: {prompt}"}}
        else:
            choice = {"index": 0, "message": {"content": f"answer to {prompt}"}, "finish_reason": "stop"}
            status, body = "200 OK", {"choices": [choice]}
            names = {"ids": f"chatcmpl-{self._number}", "mark": f"chatcmpl-{mark}", "same": "chatcmpl", "empty": ""}
            if identity in names:
                body["id"] = names[identity]  # type: ignore[assignment]
        more = f"X-Request-Id: {mark}\r\n" if identity == "header" else ""
        content = json.dumps(body)
        return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(content)}\r\n\r\n{content}".encode()


class Trial:
    """One engine that asks one service through one proxy."""

    def __init__(self, identity: str, count: int, seed: int, concurrency: int) -> None:
        self.identity, self.count, self._seed, self._concurrency = identity, count, seed, concurrency
        self.wrong: list[str] = []
        self.given_back = 0
        self._asked = 0
        self._left: dict[int, int] = dict.fromkeys(range(count), 0)  # request -> rounds so far
        self._changed = threading.Condition()
        self._again: list[int] = []

    def prompt(self, number: int) -> str:
        # Who repeats the request's id in the reply's id can't do so in a refusal.
        refused = number % REFUSED_EVERY == 0 and self.identity != "mark"
        return f"{'no' if refused else 'question'} {number} of {self.identity}"

    def run(self) -> FaultyProxy:
        """Ask everything; the proxy that it went through."""
        weights = {**WEIGHTS, **MORE_WEIGHTS[self.identity]}
        engine = OpenAIEngine()

        def seen(reply: bytes) -> bool:
            """A reply that the engine did not wait for has an id that it does not know."""
            known = engine._calls._services[f"http://127.0.0.1:{proxy.port}/v1"]._seen
            return self.identity != "ids" or json.loads(reply.partition(b"\r\n\r\n")[2])["id"] in known

        with (
            Echo(self.identity, self._seed) as service,
            FaultyProxy(service.port, weights, seed=self._seed, seen=seen) as proxy,
        ):
            url = f"http://127.0.0.1:{proxy.port}/v1"
            options = {"concurrency": self._concurrency, "timeout_s": 1.0, "start_patience_s": 0}
            engine.load(
                EngineConfig("openai", "m", base_urls=(url,), engine_options=options), self._answered, lambda note: None
            )
            engine._backoff = Backoff(first_s=0.01, most_s=0.1)
            try:
                self._ask_all(engine)
            finally:
                engine.close()
        return proxy

    def _ask_all(self, engine: OpenAIEngine) -> None:
        """As the host does: no more at a time than there are slots."""
        while self._left:
            with self._changed:
                self._changed.wait_for(self._next)
                numbers, self._again = self._again, []
                room = self._concurrency - self._asked + self.ended
                numbers += range(self._asked, min(self._asked + room, self.count))
                self._asked = min(self._asked + room, self.count)
            engine.submit([Request(self.prompt(number), id=number, attempt=1, seed=1) for number in numbers])

    def _next(self) -> bool:
        """Whether there is anything to do: requests to ask, or the end."""
        room = self._asked < self.count and self._asked - self.ended < self._concurrency
        return bool(self._again or room or not self._left)

    @property
    def ended(self) -> int:
        return self.count - len(self._left)

    def _answered(self, answers: Sequence[Answer]) -> None:
        with self._changed:
            for answer in answers:
                self._judge(answer)
            self._changed.notify_all()

    def _judge(self, answer: Answer) -> None:
        prompt = self.prompt(answer.id)
        if answer.id not in self._left:
            self.wrong.append(f"{prompt}: answered twice")
            return
        if answer.code == "retry":
            self.given_back += 1
            self._left[answer.id] += 1
            if self._left[answer.id] < ROUNDS:
                self._again.append(answer.id)
                return
        got = answer.outputs[0].text if not answer.code else answer.code
        wanted = "refused" if prompt.startswith("no") else f"answer to {prompt}"
        if got != wanted:
            self.wrong.append(f"{prompt}: {got} ({answer.message})")
        del self._left[answer.id]


def count_verdicts() -> Counter[str]:
    """What the rule said of replies, counted from here on."""
    verdicts: Counter[str] = Counter()
    judge = Service.judge

    def counted(self: Service, connection: Connection, asked: Asked, reply: Reply) -> Verdict:
        verdict = judge(self, connection, asked, reply)
        verdicts[verdict.why or ("taken, connection kept" if verdict.kept else "taken, connection closed")] += 1
        return verdict

    Service.judge = counted  # type: ignore[method-assign]
    return verdicts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="of all services together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=32, help="requests at a time, per service")
    options = parser.parse_args(arguments)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    openai_endpoints.ASIDE_FIRST_S = 0.01  # a connection that was reset is not to cost a second each
    verdicts = count_verdicts()
    share, rest = divmod(options.requests, len(IDENTITIES))
    met, wrong = Counter[str](), 0
    began_s = time.monotonic()
    for index, identity in enumerate(IDENTITIES):
        verdicts.clear()
        proxies, found = several(identity, share + (index < rest), options.seed * 1000 + index, options.concurrency)
        met, wrong = met + proxies, wrong + len(found)
        print(f"{identity}: {share + (index < rest)} requests, {time.monotonic() - began_s:.0f} s so far")
        print(f"    replies on the way: {told(proxies)}")
        print(f"    judged: {told(verdicts)}", flush=True)
        for line in found[:10]:
            print(f"    WRONG {line}")
    print(f"on the way: {told(met)}")
    print(f"{options.requests} requests, {wrong} wrong, seed {options.seed}, {time.monotonic() - began_s:.0f} s")
    return 1 if wrong else 0


def several(identity: str, count: int, seed: int, concurrency: int) -> tuple[Counter[str], list[str]]:
    """Engine after engine, since one keeps no connections any more after the first surprise on one that was kept."""
    met, wrong = Counter[str](), list[str]()
    while count > 0:
        trial = Trial(identity, min(count, PER_ENGINE), seed, concurrency)
        met += trial.run().met
        wrong += trial.wrong
        count, seed = count - PER_ENGINE, seed + len(IDENTITIES)
    return met, wrong


def told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
