"""A model outside a pipeline: real replica processes, from one thread, several, and asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import penstock as ps

pytestmark = pytest.mark.process


def model(**options: Any) -> ps.Model:
    return ps.Model("mock:launched", engine_options={"slots": 4, **options})


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_generations_come_in_the_order_of_the_prompts() -> None:
    with ps.launch(model(), replicas=2) as pool:
        assert pool.ready(30)
        prompts = [f"prompt {number}" for number in range(50)]
        found = pool.generate(prompts, max_tokens=3)
        assert [len(each.text.split()) for each in found] == [3] * 50
        assert found == pool.generate(prompts, max_tokens=3)
        assert found[0].finish_reason == "length" and found[0].tokens_out == 3 and found[0].tokens_in == 2
        stats = pool.stats()
        assert sum(replica["answered"] for replica in stats["replicas"]) == 100 and stats["waiting"] == 0
        assert pool.generate([]) == []
        logs = pool.logs
    assert not logs.exists()
    with pytest.raises(ps.PoolFailed, match="closed"):
        pool.generate(["a"])


def test_messages_and_several_texts() -> None:
    with ps.launch(model()) as pool:
        (found,) = pool.generate([[{"role": "user", "content": "hello"}]], n=2, temperature=1.0, max_tokens=2)
        assert len(found.texts) == 2
        with pytest.raises(ps.UsageError, match="prompt 0: expected a text"):
            pool.generate([{"role": "user"}])  # type: ignore[list-item]
        with pytest.raises(ps.UsageError, match="put a single one into a list"):
            pool.generate("hello")
        with pytest.raises(ps.ConfigError, match="temperature"):
            pool.generate(["a"], temperature=-1)
        with pytest.raises(ps.UsageError, match="embed"):
            pool.embed(["a"])


def test_seeds_repeat_over_launches() -> None:
    def sampled(seed: int) -> list[Any]:
        with ps.launch(model(), seed=seed) as pool:
            return [each.text for each in pool.generate(["a", "b"], temperature=1.0, max_tokens=4)]

    assert sampled(1) == sampled(1)


def test_a_prompt_that_fails() -> None:
    with ps.launch(model(fail_on="poison")) as pool:
        with pytest.raises(ps.GenerationError, match=r"prompt 1: .*refused") as caught:
            pool.generate(["fine", "poison"])
        assert (caught.value.code, caught.value.index) == ("refused", 1)
        fine, failed = pool.generate(["fine", "poison"], errors="return")
        assert fine.text and isinstance(failed, ps.GenerationError)


def test_prompts_without_an_answer_in_time_expire() -> None:
    with ps.launch(model(ms_per_row=600_000)) as pool:
        pool.ready()
        failed = pool.generate(["a", "b", "c", "d", "waits behind the four"], errors="return", timeout_s=0.5)
        assert [each.code for each in failed] == ["expired"] * 5
        until(lambda: pool.stats()["replicas"][0]["executing"] == 0)
        with pytest.raises(ps.UsageError, match="greater than 0"):
            pool.generate(["x"], timeout_s=0)


def test_results_as_they_come() -> None:
    with ps.launch(model(ms_per_row=1)) as pool:
        found = dict(pool.as_completed([str(number) for number in range(20)]))
        assert sorted(found) == list(range(20))
        for _ in pool.as_completed([str(number) for number in range(500)]):
            break  # leaving early cancels the rest
        until(lambda: not any(replica["in_flight"] for replica in pool.stats()["replicas"]))
        assert pool.stats()["waiting"] == 0


def test_stream_is_as_completed_under_its_former_name() -> None:
    with ps.launch(model()) as pool:
        with pytest.warns(DeprecationWarning, match=r"use pool\.as_completed") as caught:
            found = dict(pool.stream(["a", "b"], max_tokens=2))
        assert caught[0].filename == __file__, "the line that has to change"
        assert sorted(found) == [0, 1]


def test_a_model_that_embeds_is_launched_and_not_generated_with() -> None:
    """No step is made up for it: it is started with its own task, and its replicas become ready."""
    with ps.launch(ps.Model("mock:e", task="embed"), replicas=2) as pool:
        assert [replica.config.task for replica in pool._plan.replicas] == ["embed", "embed"]
        assert not pool._plan.pools[0].steps and not pool._plan.pool_of_step
        with pytest.raises(ps.UsageError, match="task: embed; generate needs"):
            pool.generate(["a"])
        pool.ready(60)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (ps.Model("mock:w"), {"replicas": 0}, "'replicas': expected"),
        ("mock:w", {}, "launch: expected a Model, got 'mock:w'"),
    ],
)
def test_invalid_arguments_start_nothing(model: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ps.PenstockError) as raised:
        ps.launch(model, **options)
    assert message in str(raised.value)


def test_several_threads_share_the_batch() -> None:
    with ps.launch(model(ms_per_row=5), replicas=2) as pool:
        results: dict[int, list[Any]] = {}

        def ask(number: int) -> None:
            results[number] = pool.generate([f"{number}: {index}" for index in range(40)])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        everything = [each.text for number in range(4) for each in results[number]]
        assert len(set(everything)) == 160


def test_asyncio_and_its_cancellation() -> None:
    async def main(pool: ps.LaunchedPool) -> None:
        first, second = await asyncio.gather(pool.agenerate(["a"] * 5), pool.agenerate(["b"] * 7))
        assert (len(first), len(second)) == (5, 7)
        task = asyncio.create_task(pool.agenerate([str(number) for number in range(2000)]))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with ps.launch(model(ms_per_row=20)) as pool:
        asyncio.run(main(pool))
        until(lambda: not any(replica["in_flight"] for replica in pool.stats()["replicas"]))
        assert len(pool.generate(["still there"])) == 1


def test_ctrl_c_leaves_the_pool_usable() -> None:
    with ps.launch(model(ms_per_row=200)) as pool:
        pool.ready(120)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            pool.generate([str(number) for number in range(500)])
        assert len(pool.generate(["on it goes"])) == 1


def test_a_fork_can_not_use_the_pool_and_does_not_end_it() -> None:
    """Its copy has no thread: a call would wait for ever, and a close would remove the logs of the other process."""
    with ps.launch(model()) as pool:
        pool.ready(120)
        pool._process += 1
        for use in (lambda: pool.generate(["a"]), pool.ready, lambda: next(iter(pool.as_completed(["a"])))):
            with pytest.raises(ps.UsageError, match="a fork of it; launch a pool in the process that uses it"):
                use()
        pool.close()
        pool._process -= 1
        assert pool.logs.exists() and pool.generate(["a"])[0].text


def test_a_replica_that_dies_is_made_good() -> None:
    with ps.launch(model(ms_per_row=50), replicas=2) as pool:
        pool.ready(120)
        link = next(iter(pool._thread.driver.replicas.links.values()))
        threading.Timer(
            0.2, pool._thread.driver.replicas._executor.kill, (f"launched-{link.index}", link.incarnation)
        ).start()
        found = pool.generate([str(number) for number in range(300)])
        assert len(found) == 300
        until(lambda: sum(replica["restarts"] for replica in pool.stats()["replicas"]) == 1)


def test_a_model_that_does_not_load(tmp_path: Any) -> None:
    with pytest.raises(ps.ConfigError, match=r"config\.json"):
        ps.launch(ps.Model(str(tmp_path), engine="transformers"))


def test_a_pool_whose_replicas_all_die() -> None:
    with ps.launch(model(crash_on="poison")) as pool:
        (found,) = pool.generate(["poison"], errors="return")
        assert isinstance(found, ps.GenerationError) and found.code == "engine_crash"
        assert pool.generate(["fine"])[0].text


def test_a_pool_that_can_not_start_says_why() -> None:
    with ps.launch(ps.Model("mock:none", python="/bin/false")) as pool:
        with pytest.raises(ps.PoolFailed, match="none-0 exited with code 1"):
            pool.generate(["a"])
        with pytest.raises(ps.PoolFailed):
            pool.ready()
        assert (pool.logs / "none-0.log").exists(), "kept, since they say why"
