"""Facts that the tests of the views share: a run of two models in mid-course, with what can be seen at one time."""

from __future__ import annotations

from penstock.report.facts import DeadExample, PoolFacts, ReplicaFacts, RunFacts, StepFacts


def replica(number: int = 0, pool: str = "writer", **fields: object) -> ReplicaFacts:
    base: dict[str, object] = {
        "id": f"{pool}-{number}",
        "pool": pool,
        "devices": [f"node/cpu:{number}"],
        "state": "ready",
        "executing": 16,
        "waiting": 4,
        "in_flight": 20,
        "slots": 16,
        "rows": 1222,
        "busy_s": 79.0,
        "fill_s": 76.0,
        "busy_recent": 0.984,
        "ready_s": 2.0,
        "loads": 1,
        "device_bytes": 1_234_000_000,
        "device_use": 0.93,
    }
    return ReplicaFacts(**(base | fields))  # type: ignore[arg-type]


def running(**fields: object) -> RunFacts:
    judge = [
        replica(
            0,
            "judge",
            state="starting",
            reason="loading weights, 3 of 7 files",
            busy_recent=0.0,
            slots=0,
            executing=0,
            waiting=0,
            in_flight=0,
            rows=0,
            ready_s=None,
            device_use=None,
            device_bytes=0,
        )
    ]
    writer = PoolFacts(
        name="writer", names=["writer", "editor"], tokens_in=9000, tokens_out=123_456, waiting=120,
        first_request_s=1.0, last_response_s=82.0, loads=2, replicas=[replica(0), replica(1, busy_recent=0.61)],
    )  # fmt: skip
    base: dict[str, object] = {
        "status": "running",
        "out_dir": "out/answers",
        "wall_s": 84.2,
        "total_rows": 4000,
        "rows_in": 2960,
        "committed": 2448,
        "ended": 2500,
        "out": 2440,
        "dead": 3,
        "filtered": 5,
        "reused": 0,
        "in_memory": 512,
        "rows_per_s": 812.4,
        "tokens_per_s": 12345.0,
        "eta_s": 52.0,
        "pools": [writer, PoolFacts(name="judge", names=["judge"], replicas=judge)],
        "steps": [StepFacts("generate", 2960, 2440, 3)],
        "dead_examples": [
            DeadExample(
                "generate", "too_long", 2, "questions.jsonl row 17", "prompt of 9,000 tokens, the limit is 8,192"
            ),
            DeadExample("", "bad_json", 1, "questions.jsonl row 40", "line 41, column 3: expected a value"),
        ],
        "first_request_s": 1.0,
        "last_response_s": 82.0,
    }
    return RunFacts(**(base | fields))  # type: ignore[arg-type]
