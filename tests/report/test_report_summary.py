from __future__ import annotations

import json

from report_samples import replica, running

from penstock.report.facts import PoolFacts
from penstock.report.summary import summary


def test_the_shape_of_the_contract() -> None:
    writer = PoolFacts("writer", ["writer", "editor"], tokens_in=5, tokens_out=6, loads=1, first_request_s=1.0,
                       last_response_s=81.0, replicas=[replica(0)])  # fmt: skip
    assert summary(running(status="done", pools=[writer])) == {
        "status": "done",
        "rows": {"in": 2960, "out": 2440, "dead": 3, "filtered": 5, "reused": 0},
        "wall_s": 84.2,
        "first_request_s": 1.0,
        "last_response_s": 82.0,
        "models": {
            "writer": {
                "names": ["writer", "editor"],
                "loads": 1,
                "tokens_in": 5,
                "tokens_out": 6,
                "replicas": [
                    {
                        "id": "writer-0",
                        "devices": ["node/cpu:0"],
                        "ready_s": 2.0,
                        "rows": 1222,
                        "busy_s": 79.0,
                        "busy_fraction": 1.0,
                        "fill_fraction": 0.962,
                        "restarts": 0,
                        "kv_tokens": 0,
                        "kv_tokens_planned": 0,
                    }
                ],
            }
        },
        "steps": {"generate": {"in": 2960, "out": 2440, "dead": 3}},
    }


def test_a_pool_that_was_not_needed() -> None:
    facts = running(status="done", first_request_s=None, last_response_s=None, pools=[PoolFacts("writer", ["writer"])])
    result = summary(facts)
    assert result["first_request_s"] is None
    assert result["models"]["writer"] == {
        "names": ["writer"], "loads": 0, "tokens_in": 0, "tokens_out": 0, "replicas": [],
    }  # fmt: skip


def test_a_run_cut_off_in_mid_course_has_failed() -> None:
    assert summary(running(status="running"))["status"] == "failed"
    assert [summary(running(status=s))["status"] for s in ("stopped", "too_many_dead", "failed")] == [
        "stopped",
        "too_many_dead",
        "failed",
    ]


def test_it_is_json() -> None:
    result = summary(running())
    assert json.loads(json.dumps(result, allow_nan=False)) == result
