"""How the devices of one machine are shared among pools: arithmetic only.

Every pool asks for replicas of a size. Fixed counts are served first; what is left is dealt out evenly among the pools
that take as many as there are. On CPU cores (`spread`) such a pool gets one replica, and all cores are divided among
the replicas, since an engine runs well on many cores of one memory.
"""

from __future__ import annotations

from msgspec import Struct


class Demand(Struct, frozen=True):
    """size: devices of one replica. replicas None: as many as the free devices hold (with `spread`: one)."""

    name: str
    size: int
    replicas: int | None
    spread: bool = False


class Shared(Struct, frozen=True):
    """groups: per demand, per replica, the device indexes. `reason` says need and have where it does not fit."""

    fits: bool
    groups: tuple[tuple[tuple[int, ...], ...], ...] = ()
    reason: str = ""


def share(demands: list[Demand], devices: int, what: str) -> Shared:
    """`what`: the word for one device in the reason, for instance "GPU"."""
    counts = [1 if d.replicas is None else d.replicas for d in demands]
    need = sum(count * d.size for count, d in zip(counts, demands, strict=True))
    if need > devices:
        parts = ", ".join(f"{d.name} {count} x {d.size}" for count, d in zip(counts, demands, strict=True))
        return Shared(
            fits=False,
            reason=f"the models need {need} {what}s ({parts}), this machine has {devices} free; "
            "ask for fewer replicas, or fewer devices for each",
        )
    grown = True
    while grown:
        grown = False
        for index, demand in enumerate(demands):
            if demand.replicas is None and not demand.spread and need + demand.size <= devices:
                counts[index] += 1
                need += demand.size
                grown = True
    return Shared(fits=True, groups=_deal(demands, counts, devices))


def _deal(demands: list[Demand], counts: list[int], devices: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Consecutive devices for each replica; with `spread`, those left over are dealt out too."""
    total = sum(counts)
    need = sum(count * d.size for count, d in zip(counts, demands, strict=True))
    spread = all(d.spread for d in demands) and total > 0
    extra, over = divmod(devices - need, total) if spread else (0, 0)
    groups, start = [], 0
    for demand, count in zip(demands, counts, strict=True):
        replicas = []
        for _ in range(count):
            size = demand.size + extra + (1 if over > 0 else 0)
            over -= 1
            replicas.append(tuple(range(start, start + size)))
            start += size
        groups.append(tuple(replicas))
    return tuple(groups)
