"""Steps down from a plan that ran out of memory at the start."""

from __future__ import annotations

from planner_kit import dense, large, node, pool

from penstock.planner.demand import PoolDemand
from penstock.planner.ladder import ladder
from penstock.planner.plan import make_plan
from penstock.planner.result import Rung


def steps(demand: PoolDemand, devices: int = 8) -> list[Rung]:
    model = make_plan([demand], [node(devices=devices)]).models["writer"]
    return ladder(demand, model.replicas[0], model.max_model_len, devices)


def test_context_then_batch_then_share_then_ranks() -> None:
    rungs = steps(pool(facts=large()))
    lengths = [rung.max_model_len for rung in rungs]
    assert lengths[:5] == [65536, 32768, 16384, 8192, 4096] and set(lengths[5:]) == {4096}
    assert [rung.max_num_seqs for rung in rungs[5:]] == [256, 128, 128, 128, 128]
    assert [rung.utilization for rung in rungs[5:]] == [None, None, 0.85, 0.75, 0.75]
    assert [rung.tensor_parallel for rung in rungs] == [None] * (len(rungs) - 1) + [8]
    assert all(rung.message for rung in rungs)


def test_what_was_given_stays() -> None:
    demand = pool(facts=dense(), max_model_len=8192, batch_seqs=64, utilization=0.5, tensor_parallel=1)
    assert steps(demand) == []


def test_no_more_ranks_than_the_node_or_the_heads_allow() -> None:
    assert steps(pool(facts=dense()), devices=1)[-1].tensor_parallel is None
    assert steps(pool(facts=dense(heads=9, hidden=1152, kv_heads=9)))[-1].tensor_parallel is None
