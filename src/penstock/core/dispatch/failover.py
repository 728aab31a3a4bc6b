"""What becomes of the requests that a replica had when it died, and whether the death is held against the replica.

streamed          a part of the answer was sent: the request ends, since a second run could say something else
a death           suspects, to be tried apart; in the lane: halves of them; alone, twice: the request ends
out of memory     others take them over, the replica uses less of its room; where less can't help: as suspects
it was too slow   others take them over
"""

from __future__ import annotations

from penstock.core import events as ev
from penstock.core.dispatch.lanes import Request
from penstock.core.dispatch.pool import Pool, Tasks
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.replica_states import NO_DEATH
from penstock.core.dispatch.state import DispatchState, add_failure

LOST_STREAM = "replica_lost"  # the code of a request that can't run again, since a part of its answer was sent


class Failover:
    def __init__(self, state: DispatchState) -> None:
        self._state = state
        self._limits = state.limits

    def died(self, pool: Pool, replica: Replica, event: ev.ReplicaLost) -> bool:
        """Deal with what it had. Whether the death counts for the circuit, and for how long it stays down."""
        if replica.ending_because in NO_DEATH:
            self.requeue(pool, replica, event.reason)
            return True
        # It says so itself, so no request need be suspected; a start that runs out is the ladder's (residency.py).
        if event.out_of_memory and replica.restarts.loaded:
            return self._starved(pool, replica, event.reason)
        # In the lane the request is to blame, until too many groups have died there without one answer.
        in_lane = replica.in_lane and not pool.quarantine.died()
        self.requeue(pool, replica, event.reason)
        return not (in_lane or replica.ending_because == "memory")

    def requeue(self, pool: Pool, replica: Replica, reason: str) -> None:
        """What was in flight goes elsewhere, to the suspects, or ends."""
        in_lane, alone = replica.in_lane, replica.alone
        requests, ends = self._take_all(replica, reason)
        pool.recount(replica)
        if replica.ending_because in NO_DEATH:
            self._hand_over(pool, requests, suspect=in_lane)
        else:
            for request in requests:
                request.crashes += 1
                # Only a death alone is evidence: beside others any of them may have done it.
                request.solo_crashes += request.task == alone
                # Deaths in the lane are not held against a replica, so there is nothing to take back for them.
                if not in_lane:
                    request.killed, request.killed_at = replica.index, self._state.now
            self._suspect(pool, requests, ends, reason, in_lane=in_lane)
        self._state.emit(ev.Recovered(kind="requeued", replica=replica.index, count=len(requests), reason=reason))
        self._state.fail(ends)

    def _suspect(
        self, pool: Pool, requests: list[Request], ends: ev.FailRequests, reason: str, *, in_lane: bool
    ) -> None:
        """A replica died with these in flight: which of them end, are suspects, or wait with the others again."""
        suspects: list[Request] = []
        for request in requests:
            if request.solo_crashes >= self._limits.solo_crashes:
                message = f"the replica died {request.solo_crashes} times while it ran this request alone: {reason}"
                add_failure(ends, request, "engine_crash", message)
                self._forgive(request)
            # Not among the others once more: the next replica would die of it, with all that it had.
            elif request.crashes >= self._limits.suspect_crashes:
                suspects.append(request)
            else:
                pool.lanes.push(request)
        # A search that has begun is finished first: the innocent half of its group has waited longest.
        if in_lane:
            pool.quarantine.halve(suspects)
        else:
            pool.quarantine.add(suspects)

    def _take_all(self, replica: Replica, reason: str) -> tuple[list[Request], ev.FailRequests]:
        """What was in flight and may run again; the others have failed, since a part of their answer was sent."""
        ends = ev.FailRequests(replica=replica.index)
        requests: list[Request] = []
        for request in replica.take_all():
            # Who listens has the beginning of another answer already; so it ends, though nobody suspects it.
            if self._state.may_run_again(request):
                requests.append(request)
            else:
                message = f"the first part of the answer was sent, then its replica failed: {reason}"
                add_failure(ends, request, LOST_STREAM, message)
        return requests, ends

    def _hand_over(self, pool: Pool, requests: list[Request], *, suspect: bool) -> None:
        """It was the dispatcher that ended their replica: what was not suspect is not now, what was is still."""
        if suspect:
            pool.quarantine.put_back(requests)
        else:
            for request in requests:
                pool.lanes.push(request)

    def _forgive(self, guilty: Request) -> None:
        """The death that made it a suspect was no replica's: it does not count for the circuit."""
        if guilty.killed >= 0:
            self._state.replicas[guilty.killed].restarts.forgive(guilty.killed_at)

    def _starved(self, pool: Pool, replica: Replica, reason: str) -> bool:
        """It ran out of memory at work, and uses less of its room from now on; its requests go elsewhere, none is a
        suspect. Where less can't help, they are tried apart: one that takes all memory alone, twice, ends.

        Returns whether the death counts.
        """
        state = self._state
        in_lane = replica.in_lane
        # Less of its room first: most often many middling requests were too much together.
        smaller = replica.memory.cut(replica.slots, replica.kv_tokens)
        counts = not smaller and (not in_lane or pool.quarantine.died())
        alone = len(replica.in_flight) == 1
        requests, ends = self._take_all(replica, reason)
        again: list[Request] = []
        for request in requests:
            # Beside others it was perhaps all of them together; less room deals with that.
            request.starved += alone
            if request.starved >= self._limits.same_memory:
                message = f"out of memory {request.starved} times while it ran alone: {reason}"
                add_failure(ends, request, "engine_crash", message)
                self._forgive(request)
                continue
            again.append(request)
            # Where the death does not count there is nothing to take back when a request turns out to be guilty.
            if counts:
                request.killed, request.killed_at = replica.index, state.now
        pool.recount(replica)
        if in_lane:
            pool.quarantine.halve(again)
        elif not smaller:
            pool.quarantine.add(again)
        else:
            for request in again:
                pool.lanes.push(request)
        share = round(100 * replica.memory.share)
        state.emit(ev.Recovered(kind="memory", replica=replica.index, count=share, reason=reason))
        state.fail(ends)
        return counts

    # ------------------------------------------------------------ suspects are tried apart

    def try_suspects(self, pool: Pool, sends: Tasks) -> None:
        """The lane runs one group of suspects after another, once what it had in flight is done."""
        quarantine, now, others_wait = pool.quarantine, self._state.now, pool.lanes.count > 0
        # The checks ask what was due when the lane was last looked at, not what has become due since.
        quarantine.looked_at = now
        replica = quarantine.choose(now, others_wait=others_wait)
        apart = replica is not None and replica.state == "quarantined"
        if replica is None or not apart or (replica.trying and not replica.in_flight):
            quarantine.close_turn(now)  # answered; or the lane died, and a replica can serve again
        if replica is None or (apart and replica.in_flight):
            return
        # Others wait for the only replica that can serve: they get their part of its time first (design/0010).
        if not quarantine.groups or quarantine.must_serve(replica, now, others_wait=others_wait):
            if apart or not quarantine.groups:
                self._leave_lane(pool, replica)
            return
        if not apart:
            replica.move("isolate")
            quarantine.begin_turn(now)
            pool.recount(replica)
            self._state.emit(
                ev.Recovered(kind="suspect", replica=replica.index, count=quarantine.count, reason="tried apart")
            )
        # What it had when it was chosen ends first: a death with it in flight would make suspects of innocents.
        if not replica.in_flight:
            self._try_group(pool, replica, sends)

    def _try_group(self, pool: Pool, replica: Replica, sends: Tasks) -> None:
        quarantine, now = pool.quarantine, self._state.now
        if quarantine.turn_began is None:
            quarantine.begin_turn(now)
        group = quarantine.take(replica.slots)
        replica.trying, replica.alone = len(group), group[0].task if len(group) == 1 else -1
        for request in group:
            pool.give(replica, request, sends, now)
        pool.recount(replica)

    def _leave_lane(self, pool: Pool, replica: Replica) -> None:
        """It serves the others: nothing is left to try, or they have waited for their turn."""
        quarantine = pool.quarantine
        if replica.state == "quarantined":
            replica.move("rejoin")
        replica.trying, replica.alone = 0, -1
        quarantine.replica = None
        pool.offer(replica)
        pool.recount(replica)
        if quarantine.groups:
            quarantine.choose(self._state.now, others_wait=True)
