"""Dispatch: requests on replicas, answers, retries, credit, the tail of a run, cancellation, the drain."""

from __future__ import annotations

import pytest
from core_kit import DrivenDispatch

from penstock.core import events as ev
from penstock.errors import InvariantError
from penstock.protocol.payloads import guessed_tokens


def test_replicas_start_when_their_pool_is_opened_and_only_once() -> None:
    dispatch = DrivenDispatch(4, pools=2)
    dispatch.tell(ev.OpenPools(pools=[1]))
    assert [start.replica for start in dispatch.all(ev.StartReplica)] == [1, 3]
    assert dispatch.tell(ev.OpenPools(pools=[1])) == []


def test_requests_wait_for_a_replica_and_go_where_there_is_most_room() -> None:
    dispatch = DrivenDispatch()
    dispatch.submit(0, 1, 2)
    assert dispatch.said == []
    dispatch.ready(0, 1)
    assert dispatch.sent() == {0: [0, 2], 1: [1]}


def test_pools_are_apart() -> None:
    dispatch = DrivenDispatch(2, pools=2)
    dispatch.ready(0, 1)
    dispatch.submit(0, 1, pool=1)
    assert dispatch.sent() == {1: [0, 1]}


def test_an_answer_is_delivered_and_makes_room() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=1)
    dispatch.submit(0, 1, 2)
    assert dispatch.sent() == {0: [0, 1]}
    dispatch.tell(dispatch.answers(0, 0))
    assert dispatch.only(ev.Deliver).accepted == [0]
    assert dispatch.sent() == {0: [2]}


def test_later_steps_go_first() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.submit(0, 1, step=0)
    dispatch.submit(100, step=1)
    dispatch.ready(0, slots=1)
    assert dispatch.sent() == {0: [100, 0]}


def test_lower_classes_go_first() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.submit(0, 1, step=3)
    online = ev.Submit(pool=0, step=0, tasks=[50], orders=[50], tokens_in=[1], tokens_out=[1], priority=0)
    dispatch.tell(online)
    dispatch.ready(0, slots=1)
    assert dispatch.sent() == {0: [50, 0]}


def test_the_longest_goes_first_once_the_source_is_exhausted() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.tell(ev.Exhausted())
    event = ev.Submit(pool=0, step=0, tasks=[0, 1, 2], orders=[0, 1, 2], tokens_in=[1] * 3, tokens_out=[5, 500, 50])
    dispatch.tell(event)
    dispatch.ready(0, slots=1)
    assert dispatch.sent() == {0: [1, 2]}


# ---------------------------------------------------------------- answers that are none


@pytest.mark.parametrize(
    "wrong", [{"attempts": [2]}, {"attempts": [0]}, {"incarnation": 0}, {"incarnation": 2}], ids=str
)
def test_an_answer_that_matches_nothing_is_dropped_and_counted(wrong: dict[str, object]) -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0)
    dispatch.submit(0)
    dispatch.tell(dispatch.answers(0, 0, **wrong))  # type: ignore[arg-type]
    assert not dispatch.all(ev.Deliver)
    assert dispatch.only(ev.Recovered).kind == "stale_answer"
    assert dispatch.machine.stale_answers == 1
    assert dispatch.out(0) == [0]


def test_a_duplicate_is_dropped_also_within_one_message() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0)
    dispatch.submit(0, 1)
    dispatch.tell(dispatch.answers(0, 0, 0, 1))
    assert dispatch.only(ev.Deliver).accepted == [0, 2]
    assert dispatch.only(ev.Recovered).count == 1


def test_an_answer_of_another_replica_is_dropped() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1)
    dispatch.submit(0)
    dispatch.tell(dispatch.answers(1, 0))
    assert not dispatch.all(ev.Deliver)
    assert dispatch.out(0) == [0]


def test_answers_of_a_replica_that_is_to_be_killed_are_not_trusted() -> None:
    dispatch = DrivenDispatch(1, progress_timeout_s=5.0)
    dispatch.ready(0)
    dispatch.submit(0)
    dispatch.tell(ev.Tick(), after_s=6.0)
    assert dispatch.only(ev.KillReplica).dump_stacks
    dispatch.tell(dispatch.answers(0, 0))
    assert not dispatch.all(ev.Deliver)
    dispatch.lose(0)
    dispatch.bring_back(0)
    assert dispatch.sent() == {0: [0]}


# ---------------------------------------------------------------- failures of requests


def test_a_retry_goes_again_until_the_limit() -> None:
    dispatch = DrivenDispatch(1, max_attempts=3)
    dispatch.ready(0)
    dispatch.submit(0)
    for attempt in (2, 3):
        dispatch.tell(dispatch.answers(0, 0, codes=["retry"]))
        assert dispatch.only(ev.Send).attempts == [attempt]
    dispatch.tell(dispatch.answers(0, 0, codes=["retry"]))
    failure = dispatch.only(ev.FailRequests)
    assert (failure.tasks, failure.codes, failure.attempts, failure.indexes) == ([0], ["engine_error"], [3], [0])


def test_a_rows_own_failure_is_not_retried() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0)
    dispatch.submit(0, 1)
    dispatch.tell(dispatch.answers(0, 0, 1, codes=["", "refused"]))
    assert dispatch.only(ev.Deliver).accepted == [0]
    failure = dispatch.only(ev.FailRequests)
    assert (failure.tasks, failure.codes, failure.batch, failure.indexes) == ([1], ["refused"], 1, [1])


# ---------------------------------------------------------------- tokens


def test_token_credit_counts_expected_output() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=8, kv_tokens=100)
    dispatch.submit(0, 1, 2, tokens_in=10, out=40)
    assert dispatch.sent() == {0: [0, 1]}
    dispatch.tell(dispatch.answers(0, 0, tokens_out=4))  # a tenth of the limit
    assert dispatch.sent() == {0: [2]}
    dispatch.submit(3, 4, tokens_in=10, out=40)
    assert dispatch.sent() == {0: [3, 4]}


def test_the_host_corrects_the_prompt_length() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=8, kv_tokens=100)
    dispatch.submit(0, tokens_in=10, out=10)
    dispatch.tell(dispatch.answers(0, sized=[(0, 90)]))
    assert dispatch.machine.replicas[0].tokens_in_flight == 100
    dispatch.submit(1, tokens_in=10, out=20)
    assert dispatch.sent() == {}
    dispatch.tell(dispatch.answers(0, 0))
    assert dispatch.sent() == {0: [1]}


def test_a_request_that_has_become_first_is_tried_at_once() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=8, kv_tokens=100)
    dispatch.submit(0, tokens_in=10, out=80)
    dispatch.submit(1, tokens_in=10, out=90)
    dispatch.submit(2, tokens_in=1, out=5)
    assert dispatch.sent() == {}
    dispatch.tell(ev.CancelRequests(tasks=[1]))
    assert dispatch.sent() == {0: [2]}


# ---------------------------------------------------------------- look-ahead


def test_look_ahead_grows_when_the_engine_ran_dry_though_requests_waited() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=1)
    dispatch.submit(*range(10))
    assert len(dispatch.out(0)) == 2
    for task, after_s in ((0, 0.002), (1, 0.002), (2, 0.008)):
        dispatch.tell(dispatch.answers(0, task, executing=0, waiting=0), after_s=after_s)
    assert len(dispatch.out(0)) == 1 + 5, "3 in 12 ms are 2.5 in a turnaround of 10 ms; half as much again, and one"


# ---------------------------------------------------------------- cancellation


def test_cancelled_requests_leave_wherever_they_are() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=1)
    dispatch.submit(0, 1, 2, 3)
    dispatch.tell(ev.CancelRequests(tasks=[1, 3]))
    assert dispatch.only(ev.AbortOn).tasks == [1]
    assert dispatch.only(ev.Cancelled).tasks == [1, 3]
    assert dispatch.sent() == {0: [2]}
    assert dispatch.out(0) == [0, 2]
    dispatch.tell(dispatch.answers(0, 1))
    assert not dispatch.all(ev.Deliver), "an aborted answer is never a result"


# ---------------------------------------------------------------- lengths of prompts


def test_prompts_that_were_guessed_too_short_are_charged_as_hosts_count_them() -> None:
    """Chinese: 300 characters are some 300 tokens; a quarter of their characters would be 75."""
    guessed = guessed_tokens("请" * 300)
    assert guessed == 226
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=8, kv_tokens=1_000)
    dispatch.submit(*range(20), tokens_in=guessed, out=1)
    sent = dispatch.out(0)
    assert len(sent) == 5, "as many as seem to fit"
    dispatch.tell(dispatch.answers(0, sized=[(task, 300) for task in sent]))
    assert dispatch.machine.replicas[0].tokens_in_flight == 5 * 301
    dispatch.tell(dispatch.answers(0, *sent[:3], tokens_out=1))
    assert len(dispatch.out(0)) == 4, "what follows is charged by what was learned: four of 301 fit"
    assert dispatch.machine.replicas[0].tokens_in_flight == 4 * 301


# ---------------------------------------------------------------- deadlines


def submit_until(dispatch: DrivenDispatch, timeout_s: float | None, *tasks: int) -> None:
    numbers, ones = list(tasks), [1] * len(tasks)
    dispatch.tell(
        ev.Submit(pool=0, step=0, tasks=numbers, orders=numbers, tokens_in=ones, tokens_out=ones, timeout_s=timeout_s)
    )


def test_a_request_past_its_deadline_ends_wherever_it_is() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=1)
    submit_until(dispatch, None, 0)
    submit_until(dispatch, 5.0, 1, 2)
    submit_until(dispatch, 50.0, 3)
    assert dispatch.out(0) == [0, 1]
    assert dispatch.tell(ev.Tick(), after_s=4.9) == []
    dispatch.tell(ev.Tick(), after_s=0.1)
    ends = dispatch.only(ev.FailRequests)
    assert (ends.tasks, ends.codes, ends.replica) == ([1, 2], ["expired", "expired"], -1)
    assert "in flight" in ends.messages[0] and "waiting" in ends.messages[1]
    assert dispatch.only(ev.AbortOn).tasks == [1]
    assert dispatch.sent() == {0: [3]}, "its place is free at once"
    dispatch.tell(dispatch.answers(0, 1))
    assert not dispatch.all(ev.Deliver)


def test_a_deadline_of_a_request_that_has_ended_takes_no_memory() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=50)
    submit_until(dispatch, 60.0, 0)
    for first in range(1, 20_000, 50):
        submit_until(dispatch, 3600.0, *range(first, first + 50))
        while len(dispatch.out(0)) > 1:
            dispatch.tell(dispatch.answers(0, *dispatch.out(0)[1:]))
        dispatch.tell(ev.Tick(), after_s=0.01)
    assert len(dispatch.machine.deadlines) < 3000
    dispatch.tell(ev.Tick(), after_s=60.0)
    assert dispatch.only(ev.FailRequests).tasks == [0], "one that is open is kept"


def test_an_answer_in_time_is_delivered_and_the_deadline_forgotten() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=1)
    submit_until(dispatch, 5.0, 1)
    dispatch.tell(dispatch.answers(0, 1), after_s=4.0)
    assert dispatch.only(ev.Deliver).accepted == [0]
    assert dispatch.tell(ev.Tick(), after_s=10.0) == []


def test_deadlines_pass_while_no_replica_is_ready() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.tell(ev.OpenPools(pools=[0]))
    submit_until(dispatch, 2.0, 7)
    dispatch.tell(ev.Tick(), after_s=2.0)
    assert dispatch.only(ev.FailRequests).tasks == [7]
    assert not dispatch.all(ev.AbortOn)


# ---------------------------------------------------------------- ending in good order


def test_a_replica_that_is_ten_times_slower_gets_a_tenth() -> None:
    dispatch = DrivenDispatch(2)
    dispatch.ready(0, 1, slots=4)
    dispatch.submit(*range(2000))
    answered = {0: 0, 1: 0}
    for turn in range(400):
        for replica in (0, 1) if turn % 10 == 0 else (0,):
            (first, *_) = dispatch.out(replica)
            dispatch.tell(dispatch.answers(replica, first, executing=4, waiting=1, progress=turn + 2), after_s=0.01)
            answered[replica] += 1
    assert answered == {0: 400, 1: 40}
    assert len(dispatch.out(1)) < 20, "and not much waits there"


def test_a_drain_sends_nothing_and_waits_for_what_has_begun() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=1)
    dispatch.submit(0, 1, 2)
    dispatch.tell(ev.DrainRequested(grace_s=10.0))
    assert dispatch.only(ev.TakeBackFrom).tasks == [1]
    dispatch.tell(dispatch.answers(0, returned=[1]))
    assert dispatch.said == []
    dispatch.tell(dispatch.answers(0, 0))
    assert dispatch.only(ev.Deliver)
    assert dispatch.only(ev.Drained)
    dispatch.submit(5)
    assert dispatch.said == []


def test_a_drain_is_over_after_its_grace() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.ready(0, slots=1)
    dispatch.submit(0)
    dispatch.tell(ev.DrainRequested(grace_s=10.0))
    dispatch.tell(ev.Tick(), after_s=9.0)
    assert not dispatch.all(ev.Drained)
    dispatch.tell(ev.Tick(), after_s=1.0)
    assert dispatch.only(ev.Drained)
    assert dispatch.tell(ev.Tick(), after_s=1.0) == []


def test_a_drain_with_nothing_in_flight_is_over_at_once() -> None:
    dispatch = DrivenDispatch(1)
    dispatch.tell(ev.DrainRequested(grace_s=10.0))
    assert dispatch.only(ev.Drained)
    assert dispatch.tell(ev.OpenPools(pools=[0])) == [], "nothing is started any more"


def test_an_event_of_the_other_machine_is_a_bug() -> None:
    with pytest.raises(InvariantError, match="dispatch has no rule for RowsRead"):
        DrivenDispatch().tell(ev.RowsRead(rows=[], sizes_bytes=[], unreadable=[], next_position=0))
