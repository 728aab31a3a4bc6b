"""One pool: its replicas, what waits for them, and which replica gets the next request."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace

from penstock.core.dispatch.lanes import OUTPUT_TOKEN_WORK, Lane, Lanes, Request
from penstock.core.dispatch.lengths import Lengths
from penstock.core.dispatch.peers import PeerGroup
from penstock.core.dispatch.quarantine import Quarantine
from penstock.core.dispatch.replica import Replica
from penstock.core.dispatch.replica_states import SERVES

_TOP = 1 << 33  # larger than any rank

Tasks = dict[int, tuple[list[int], list[int]]]  # replica -> (tasks, attempts)


class Pool:
    """quarantine: requests that were in flight at a death, tried apart.

    Offers are a heap of numbers for each class, (_TOP - rank) * replicas + place: the replica that gets its next
    request is on top. A number whose rank is not the replica's any more is stale and passed over, so that a change
    costs one push.
    """

    def __init__(self, index: int, name: str, replicas: list[Replica]) -> None:
        self.index = index
        self.name = name
        self.replicas = replicas
        self.lanes = Lanes()
        self.lengths = Lengths()
        self.quarantine = Quarantine(replicas)
        self.compare_peers()
        self.opened = False
        self.lazy = False  # opened, but to be started with the first request
        self.down = False
        self.paused_at: float | None = None  # since when nothing is sent
        self.by_work = (
            False  # the rest is known: level the work, since the replica that ends last decides when the run ends
        )
        self._loading = 0
        self._by_index = {replica.index: replica for replica in replicas}
        self._place = {replica.index: place for place, replica in enumerate(replicas)}
        self._offers: dict[int, list[int]] = {}  # by class, from its first request on
        self._sure: dict[int, int] = {}  # place -> its number, while a lane is served: known to hold without a look
        self._classes: set[int] = set()  # that have had requests; their offers are rebuilt on demand
        self._excess = self._idle = self._recalled = 0

    def compare_peers(self) -> None:
        replicas = self.replicas
        kinds = sorted({replica.shape.peer_group for replica in replicas if replica.shape.peer_group >= 0})
        self.peers = [
            PeerGroup([r for r in replicas if r.shape.peer_group == kind], replicas[0].limits) for kind in kinds
        ]

    def add(self, replica: Replica) -> None:
        """Another replica; its quarantine sees the same list."""
        self.replicas.append(replica)
        self._by_index[replica.index] = replica
        self._place[replica.index] = len(self.replicas) - 1
        self.compare_peers()
        self._offers.clear()  # places are numbered among more replicas now

    @property
    def paused(self) -> bool:
        return self.paused_at is not None

    def offer(self, replica: Replica) -> None:
        """Tell that the replica's spare credit has changed, for whichever class."""
        self._sure.pop(self._place[replica.index], None)
        for priority, heap in self._offers.items():
            rank = replica.rank(priority, by_work=self.by_work)
            if rank:
                heappush(heap, (_TOP - rank) * len(self.replicas) + self._place[replica.index])
                # Stale numbers are dropped when they are on top; those of busy replicas may never get there.
                if len(heap) > 4 * len(self.replicas) + 64:
                    self._rebuild_offers(priority)

    def level_work(self) -> None:
        """No further source rows will come: rank the longest first, and the replica with the least work first."""
        self.by_work = True
        # Ranks mean another thing from here on: no number of the heaps is comparable with a new one.
        self.lanes.longest_first(self.lengths.ratio)
        self._offers.clear()

    def forget_phase(self) -> None:
        """Another phase begins: its end is not in sight, and nothing waits."""
        if self.by_work:
            self.by_work = False
            self.lanes = Lanes()
            self._offers.clear()

    def fair_share(self) -> float | None:
        """Work that each replica has to do of what is left; None while the end of the source is not in sight."""
        if not self.by_work:
            return None
        ready = [replica for replica in self.replicas if replica.state in SERVES]
        self._loading = sum(replica.state in ("starting", "waking") for replica in self.replicas)
        if not ready or not (self._loading or any(replica.shared for replica in ready)):
            return None
        waiting = sum(
            lane.tokens_in + self.lengths.expected(lane.step, lane.tokens_out) * OUTPUT_TOKEN_WORK
            for lane in self.lanes.ranked
        )
        return (waiting + sum(replica.work for replica in ready)) / (len(ready) + self._loading)

    def held_back(self, replica: Replica, share: float) -> bool:
        """Whether a busy replica is to get no more, since the rest is the share of others.

        Of others that are still loading, in any case; of others that are ready, where slots share a device: there an
        idle slot is no lost time, and the replica with the longest rows would end last. An idle replica
        always gets work.
        """
        if not replica.in_flight or replica.work < share:
            return False
        return replica.shared or self._loading > 0

    def _rebuild_offers(self, priority: int) -> list[int]:
        self._classes.add(priority)
        count = len(self.replicas)
        ranks = [(replica.rank(priority, by_work=self.by_work), at) for at, replica in enumerate(self.replicas)]
        offers = self._offers[priority] = [(_TOP - rank) * count + place for rank, place in ranks if rank]
        heapify(offers)
        return offers

    def fill(self, now: float) -> Tasks:
        """Give waiting requests, best first, each to the replica with the most spare credit, until one runs out."""
        sends: Tasks = {}
        before = self.lanes.count
        share = self.fair_share()
        blocked: Lane | None = None
        for lane in self.lanes.ranked:
            if not self.lanes.may_pass(lane, blocked):
                break
            left = len(lane)
            self._sure.clear()
            while left:
                replica = self._first_in_line(lane.priority)
                if replica is None or (share is not None and self.held_back(replica, share)):
                    break
                if not self._give_from(lane, replica, sends, now):
                    break
                left -= 1
            if left:
                blocked = blocked or lane
        self.lanes.recount()
        if self.lanes.count < before:
            for index in sends:
                self.recount(self._by_index[index])
        return sends

    def _first_in_line(self, priority: int) -> Replica | None:
        offers, count = self._offers.get(priority), len(self.replicas)
        if offers is None:
            offers = self._rebuild_offers(priority)
        while offers:
            over, place = divmod(offers[0], count)
            replica = self.replicas[place]
            # Most were computed for the request before: nothing has changed since.
            if self._sure.get(place) == offers[0] or replica.rank(priority, by_work=self.by_work) == _TOP - over:
                return replica
            heappop(offers)
        return None

    def _give_from(self, lane: Lane, replica: Replica, sends: Tasks, now: float) -> bool:
        """Give the lane's first request to `replica`, the top of the offers, or to another that has the tokens."""
        request = lane.pop()
        self.appraise(request)
        if (replica.kv_tokens or replica.holds_enough()) and not replica.fits(request.cost):
            fitting = self._fitting(request)
            if fitting is None:
                lane.put_back(request)
                return False
            self.give(fitting, request, sends, now)
            self.offer(fitting)
            return True
        self.give(replica, request, sends, now)
        if len(self._offers) > 1:
            self.offer(replica)  # what it has left counts for the other classes as well
            return True
        rank, offers = replica.rank(request.priority, by_work=self.by_work), self._offers[request.priority]
        place = self._place[replica.index]
        number = self._sure[place] = (_TOP - rank) * len(self.replicas) + place if rank else 0
        if rank:
            heapreplace(offers, number)
        else:
            heappop(offers)
        return True

    def appraise(self, request: Request) -> None:
        """What it will take of a replica, as far as that is known now."""
        expected = self.lengths.expected(request.step, request.tokens_out)
        # What a host has counted stays: a request that comes back is not guessed at a second time.
        if not request.counted:
            known = self.lengths.prompt_ratio
            request.prompt = self.lengths.prompt(request.step, request.tokens_in) if known else request.tokens_in
        request.cost = request.prompt + expected
        request.work = request.prompt + expected * OUTPUT_TOKEN_WORK

    def _fitting(self, request: Request) -> Replica | None:
        fitting = [r for r in self.replicas if r.spare(request.priority) > 0 and r.fits(request.cost)]
        ranks = {r.index: r.rank(request.priority, by_work=self.by_work) for r in fitting}
        return max(fitting, key=lambda r: (ranks[r.index], -r.index)) if fitting else None

    def give(self, replica: Replica, request: Request, sends: Tasks, now: float) -> None:
        in_flight = replica.in_flight
        if not in_flight:
            replica.liveness.progress_at = now  # it owed nothing until now
        if replica.pace.at != now:
            replica.pace.advance(len(in_flight), now)
        request.attempt += 1
        request.place = replica.index
        replica.charge(request)
        found = sends.get(replica.index)
        if found is None:
            found = sends[replica.index] = ([], [])
        found[0].append(request.task)
        found[1].append(request.attempt)

    # ------------------------------------------------------------ taking back

    def recount(self, replica: Replica) -> None:
        """Keep the pool's totals true of `replica`: after what changed its state or what is in flight there."""
        counted, replica.counted = replica.counted, replica.count()
        self._excess += replica.counted[0] - counted[0]
        self._idle += replica.counted[1] - counted[1]
        self._recalled += replica.counted[2] - counted[2]

    def to_take_back(self, *, everything: bool = False) -> dict[int, list[int]]:
        """Requests to call back from hosts, those sent last to the fullest replicas first. Only what waits in a host
        comes back; what the host has started is not asked for again."""
        wanted, wants = (self._excess, _whatever) if everything else self._wanted_back()
        recalls: dict[int, list[int]] = {}
        if wanted <= 0:
            return recalls
        for replica in sorted(self.replicas, key=lambda r: -r.counted[0]):
            count = min(wanted, replica.counted[0])
            if count <= 0:
                break
            tasks = self._recall(replica, count, wants)
            if tasks:
                recalls[replica.index] = tasks
                self.recount(replica)
                wanted -= len(tasks)
        return recalls

    def _wanted_back(self) -> tuple[int, Callable[[Request], bool]]:
        """How many requests could run elsewhere now, or are in the way of a higher class; and which.

        None goes back and forth: an idle slot takes only what it has the tokens for and what goes before the request
        that waits, and a lower class makes room for a higher one, never the other way.
        """
        idle, several = max(0, self._idle - self._recalled), len(self._classes) > 1  # slots; classes
        # Nearly every turn of a run ends here: nothing may cost more than these two numbers before it.
        if not self._excess or not (idle or several):
            return 0, _whatever
        head = self.lanes.first()
        if head is None:
            room = self._room_in_idle_slots()
            return min(self._excess, idle), lambda request: request.cost <= room
        self.appraise(head)
        if any(replica.spare(head.priority) > 0 and replica.fits(head.cost) for replica in self.replicas):
            return 0, _whatever  # it is held back for others that are loading, not short of a place
        room = self._room_in_idle_slots()
        same = sum(len(lane) for lane in self.lanes.ranked if lane.priority == head.priority) if several else 0
        priority, before = head.priority, self.lanes.goes_before
        return (
            min(self._excess, max(idle, same - self._recalled)),
            lambda request: request.priority > priority or (request.cost <= room and before(request, head)),
        )

    def _room_in_idle_slots(self) -> float:
        return max((r.token_room() for r in self.replicas if r.counted[1]), default=0.0)

    def _recall(self, replica: Replica, count: int, wants: Callable[[Request], bool]) -> list[int]:
        tasks: list[int] = []
        # The newest first: the older ones are the next that the engine begins, and would be asked for in vain.
        for request in reversed(replica.in_flight.values()):
            if not request.recalled and not request.started and wants(request):
                request.recalled = True
                tasks.append(request.task)
                if len(tasks) == count:
                    break
        replica.recalled += len(tasks)
        return tasks

    def waiting(self) -> int:
        return self.lanes.count + self.quarantine.count


def _whatever(request: Request) -> bool:
    return True
