"""Planning 1,000 nodes of mixed sizes, some devices taken, for three models: under a second.

python bench/planning.py [--nodes 1000] [--seeds 5]

Models are made from config.json's shapes; no file is read and no device is needed. The time is that of `make_plan`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from common import Figure, main
from penstock.planner.cluster import NodeFacts
from penstock.planner.demand import PoolDemand
from penstock.planner.model import Layer, ModelFacts, Weights
from penstock.planner.plan import make_plan

LIMIT_S = 1.0
GB = 10**9
KINDS = ((16, "pcie"), (24, "pcie"), (48, "pcie"), (40, "nvlink"), (80, "nvlink"), (141, "nvlink"))
SIZES = (1, 2, 4, 6, 8)


def model(layers: int, hidden: int, intermediate: int, heads: int) -> ModelFacts:
    """A decoder with eight KV heads, like those of the Llama family."""
    kv = 2 * hidden * 8 * hidden // heads
    layer = Layer(Weights(linear=2 * hidden**2 + kv + 3 * hidden * intermediate), Weights(plain=2 * hidden))
    vocabulary = Weights(plain=128256 * hidden)
    return ModelFacts(
        ref="model", architecture="LlamaForCausalLM", confidence="exact", layers=(layer,) * layers,
        embedding=vocabulary, head=vocabulary, hidden=hidden, intermediate=intermediate, heads=heads, kv_heads=8,
        head_dim=hidden // heads, vocabulary=128256, windows=(0,) * layers, max_position_embeddings=131072,
    )  # fmt: skip


MODELS = {
    "small": model(32, 4096, 14336, 32),
    "large": model(80, 8192, 28672, 64),
    "largest": model(126, 16384, 53248, 128),
}


def cluster(count: int, seed: int) -> tuple[NodeFacts, ...]:
    """Nodes of all kinds and sizes; of a tenth of them some devices are taken."""
    rng = random.Random(seed)
    nodes = []
    for number in range(count):
        memory_gb, link = rng.choice(KINDS)
        size = rng.choice(SIZES)
        used = tuple(sorted(rng.sample(range(size), rng.randint(1, size)))) if rng.random() < 0.1 else ()
        nodes.append(
            NodeFacts(
                name=f"n{number}", devices=size, device_memory_bytes=memory_gb * GB, link=link, cpus=64, used=used
            )
        )
    return tuple(nodes)


def measure(arguments: argparse.Namespace) -> list[Figure]:
    demands = [PoolDemand(name=name, names=(name,), engine="vllm", facts=facts) for name, facts in MODELS.items()]
    times, placed, used = [], 0, 0.0
    for seed in range(arguments.seeds):
        nodes = cluster(arguments.nodes, seed)
        begin = time.perf_counter()
        plan = make_plan(demands, nodes)
        times.append(time.perf_counter() - begin)
        if not plan.fits:
            raise SystemExit(plan.reason)
        replicas = [replica for found in plan.models.values() for replica in found.replicas]
        placed = len(replicas)
        used = sum(len(replica.devices) for replica in replicas) / sum(n.devices - len(n.used) for n in nodes)
    measured = f"{statistics.median(times):.2f} s, {max(times):.2f} s at worst ({placed:,} replicas, {used:.0%} in use)"
    what = f"{arguments.nodes:,} mixed nodes, 3 models"
    return [Figure("planning", what, measured, f"< {LIMIT_S:g} s", max(times) < LIMIT_S)]


if __name__ == "__main__":
    main(measure, __doc__.splitlines()[0], nodes=1000, seeds=5)
