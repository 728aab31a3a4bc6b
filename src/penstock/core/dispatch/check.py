"""The invariants of Dispatch, checked against its whole state. Raises InvariantError with the story.

Run after every turn in simulation and tests, and by the driver when it is idle, bounded in time: it costs time in
proportion to what waits and what is in flight.
"""

from __future__ import annotations

from collections import Counter
from math import inf

from penstock.core.dispatch.dispatch import Dispatch
from penstock.core.dispatch.lanes import SUSPECT, WAITING, Request
from penstock.core.dispatch.pool import _TOP, Pool
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.replica_states import ANSWERS, UP

HOLDS = ANSWERS | {"killed", "leaving"}  # its requests are in flight until its processes have ended


def check_dispatch(dispatch: Dispatch) -> None:
    seen: set[int] = set()
    for pool in dispatch.pools:
        _check_places(dispatch, pool, seen)
        # Who is to stop, or is paused, leaves work undone on purpose.
        if dispatch.draining_until is None and not pool.paused:
            _check_work_conserved(dispatch, pool)
            _check_tail(dispatch, pool)
            _check_suspects(dispatch, pool)
    if len(seen) != len(dispatch.requests):
        raise dispatch.broken(f"requests {sorted(dispatch.requests.keys() - seen)[:10]} are nowhere")
    for replica in dispatch.replicas:
        _check_credit(dispatch, replica)
        _check_restarts(dispatch, replica)
        _check_tenure(dispatch, replica)


def _check_places(dispatch: Dispatch, pool: Pool, seen: set[int]) -> None:
    """Each request is in exactly one place, and within its limits."""
    waiting, suspects = pool.lanes.requests(), list(pool.quarantine.requests())
    if len(waiting) != pool.lanes.count:
        raise dispatch.broken(f"pool {pool.name} counts {pool.lanes.count} waiting requests of {len(waiting)}")
    for request, place in (*((each, WAITING) for each in waiting), *((each, SUSPECT) for each in suspects)):
        _check_request(dispatch, request, seen, place)
        if request.begun:
            raise dispatch.broken(f"request {request.task} waits, and a part of its answer was sent", request.task)
        if request.recalled or request.started:
            raise dispatch.broken(f"request {request.task} waits, and is called back from a host", request.task)
    for replica in pool.replicas:
        for task, request in replica.in_flight.items():
            _check_request(dispatch, request, seen, replica.index)
            if request.begun not in (0, request.attempt):
                raise dispatch.broken(f"request {task} runs again, and a part of its answer was sent", task)
            if task != request.task or request.attempt < 1:
                raise dispatch.broken(f"request {request.task} is in flight as {task}, never sent", task)


def _check_request(dispatch: Dispatch, request: Request, seen: set[int], place: int) -> None:
    limits = dispatch.limits
    if request.task in seen:
        raise dispatch.broken(f"request {request.task} is in two places", request.task)
    seen.add(request.task)
    # A cancellation finds a request by this index alone: one that it does not know could never be cancelled.
    if request.place != place or dispatch.requests.get(request.task) is not request:
        raise dispatch.broken(f"request {request.task} is not where the index says: {request}", request.task)
    if request.deadline < dispatch.deadlines.judged_at:
        raise dispatch.broken(f"request {request.task} has outlived its deadline of {request.deadline}", request.task)
    if request.failures >= limits.max_attempts or request.solo_crashes >= limits.solo_crashes:
        raise dispatch.broken(f"request {request.task} continues beyond its limit of attempts", request.task)


def _check_credit(dispatch: Dispatch, replica: Replica) -> None:
    name, requests = replica.shape.name, replica.in_flight.values()
    if replica.in_flight and replica.state not in HOLDS:
        raise dispatch.broken(f"{name} is {replica.state} with {len(replica.in_flight)} requests in flight")
    # Counters that are kept up one by one drift with the first path that forgets them; here they are counted again.
    held = Counter(request.priority for request in requests)
    if held != Counter(replica.held):
        raise dispatch.broken(f"{name} counts {replica.held} requests by class, {dict(held)} are in flight")
    for counted, what, found in (
        (replica.tokens_in_flight, "tokens", sum(request.cost for request in requests)),
        (replica.work, "tokens of work", sum(request.work for request in requests)),
        (replica.recalled, "requests called back", sum(request.recalled for request in requests)),
        (replica.started, "started requests", sum(request.started for request in requests)),
    ):
        if counted != found:
            raise dispatch.broken(f"{name} is charged {counted} {what}, {found} are in flight")
    # Fewer slots take nothing back: what was sent while there were more is still its own.
    if len(requests) > max(replica.slots + replica.limits.max_lookahead, replica.overhang):
        raise dispatch.broken(f"{name} was sent {len(requests)} requests")


def _check_restarts(dispatch: Dispatch, replica: Replica) -> None:
    if replica.wanted and replica.state != "failed" and replica.restarts.exhausted():
        raise dispatch.broken(f"{replica.shape.name} continues beyond its limit of restarts")


def _check_tenure(dispatch: Dispatch, replica: Replica) -> None:
    """Replicas are loaded while their pool is open, and in their phases; what has left does not come back by itself."""
    pool, name, residency = dispatch.pools[replica.shape.pool], replica.shape.name, dispatch.residency
    up = replica.state in UP
    if up and not pool.opened:
        raise dispatch.broken(f"{name} is {replica.state}, and its pool is closed")
    if replica.wanted == (replica.state == "draining") and replica.state not in ("off", "leaving", "killed"):
        raise dispatch.broken(f"{name} is {replica.state}, and {'wanted' if replica.wanted else 'was removed'}")
    # An idle replica that nobody may use holds devices that another could have.
    if replica.state == "draining" and not replica.in_flight and dispatch.draining_until is None:
        raise dispatch.broken(f"{name} has finished what it had, and stays")
    if up and replica.wanted and not dispatch.belongs(replica):
        raise dispatch.broken(f"{name} is {replica.state} in phase {dispatch.phase}, where the plan does not load it")
    if up and pool.lazy:
        raise dispatch.broken(f"{name} is {replica.state}, and no request has come for its pool")
    # A lazy pool starts with its first request, which may come while others still leave: then PoolsClosed starts it.
    if pool.lazy and pool.waiting() and not residency.closing:
        raise dispatch.broken(f"requests wait for {pool.name}, and nothing is started")
    # PoolsClosed waits for exactly these: with one too few two phases share the memory, with one too many it never
    # comes.
    if (replica.state in ("leaving", "falling_asleep")) != (replica.index in residency.leaving):
        raise dispatch.broken(f"{name} is {replica.state}, and the phase before thinks otherwise")
    if replica.memory.rung > replica.shape.rungs:
        raise dispatch.broken(f"{name} stands on rung {replica.memory.rung} of {replica.shape.rungs}")


def _check_work_conserved(dispatch: Dispatch, pool: Pool) -> None:
    """No ready replica has credit for the request that is to go next; but a busy one may be kept from taking what
    others that are loading will want."""
    head, count = pool.lanes.first(), len(pool.replicas)
    share = pool.fair_share()
    for priority, offers in pool._offers.items():
        known = set(offers)
        for place, replica in enumerate(pool.replicas):
            rank = replica.rank(priority, by_work=pool.by_work)
            if rank and (_TOP - rank) * count + place not in known:
                raise dispatch.broken(
                    f"{replica.shape.name} has spare credit for class {priority} and is not in its offer heap"
                )
    if head is None:
        return
    pool.appraise(head)
    for replica in pool.replicas:
        # A busy replica may be held back from the rest of the run, which others that still load will share.
        if replica.spare(head.priority) <= 0 or (share is not None and replica.in_flight):
            continue
        if replica.fits(head.cost):
            raise dispatch.broken(f"{replica.shape.name} has credit, and request {head.task} waits", head.task)


def _check_tail(dispatch: Dispatch, pool: Pool) -> None:
    """The pool's totals are true; no slot is idle while a request waits in another host and nobody calls one back."""
    counts = [replica.count() for replica in pool.replicas]
    excess, idle, recalled = (sum(count[at] for count in counts) for at in range(3))
    if (excess, idle, recalled) != (pool._excess, pool._idle, pool._recalled):
        raise dispatch.broken(
            f"pool {pool.name} counts {pool._excess} excess, {pool._idle} idle, {pool._recalled} called back; "
            f"its replicas have {excess}, {idle}, {recalled}"
        )
    # With a bound on tokens what waits elsewhere may not fit into the idle slot: then it stays where it is.
    roomy = any(replica.token_room() == inf for replica in pool.replicas if replica.counted[1])
    if roomy and excess and idle > recalled and not pool.lanes.count:
        raise dispatch.broken(f"{idle} slots of {pool.name} are idle, {excess} requests wait in hosts, {recalled} come")
    head = pool.lanes.first()
    if head is None or recalled:
        return
    pool.appraise(head)
    if any(replica.spare(head.priority) > 0 and replica.fits(head.cost) for replica in pool.replicas):
        return
    for replica in pool.replicas:
        lower = (r.priority > head.priority and not (r.recalled or r.started) for r in replica.in_flight.values())
        if replica.count()[0] and any(lower):
            raise dispatch.broken(f"request {head.task} waits, and a lower class waits in the host of {replica.index}")


def _check_suspects(dispatch: Dispatch, pool: Pool) -> None:
    """Suspects are being tried, by one replica, which runs nothing else."""
    quarantine, chosen = pool.quarantine, pool.quarantine.replica
    for replica in pool.replicas:
        # Two lanes could each lose a replica to the same suspects.
        if replica.state == "quarantined" and replica is not chosen:
            raise dispatch.broken(f"{replica.shape.name} tries suspects, and so does another")
    # An empty group would count as tried without having run.
    if quarantine.count != sum(map(len, quarantine.groups)) or not all(quarantine.groups):
        raise dispatch.broken(f"pool {pool.name} counts {quarantine.count} suspects of {quarantine.groups}")
    if not quarantine.groups:
        return
    nobody = chosen is None or chosen.state not in UP
    if nobody and any(replica.serves for replica in pool.replicas):
        raise dispatch.broken(f"pool {pool.name} has suspects, and nobody tries them")
    if chosen is None or not chosen.serves:
        return
    # Judged at the time of the last look, since a turn may have become due between two ticks.
    looked_at, others_wait, apart = quarantine.looked_at, pool.lanes.count > 0, chosen.state == "quarantined"
    serves = not apart and quarantine.must_serve(chosen, looked_at, others_wait=others_wait)
    if not serves and not (apart and chosen.in_flight):
        raise dispatch.broken(f"{chosen.shape.name} is to try suspects, and does not")
    if apart and quarantine.turn_began is None:
        raise dispatch.broken(f"{chosen.shape.name} tries suspects, and nobody counts the time")
