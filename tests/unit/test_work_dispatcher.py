"""Test the dispatcher step by step: batches, renewals, lost claims, drains, and a database that fails."""

from __future__ import annotations

import pytest

from jobdb import Busy, EventKind, GiveBack, JobStatus, NewEvent, StorageFailed, SyncFailed, Unavailable
from jobdb.errors import DatabaseReplaced, JobdbError
from jobdb.work.outcomes import Failed, NotStarted, StopCause, Stopped, Succeeded
from jobdb.work.transitions import Ended, Lost, Returned, Stopping, Trouble
from tests.support.fake_work import Bench

DONE = Succeeded(detail="done")


def busy() -> JobdbError:
    return Busy("the database is locked", waited_sec=30.0)


def test_ends_events_renewals_and_claims_share_a_batch() -> None:
    bench = Bench(concurrency=2, lease_sec=60)
    for job_id in ("a", "b", "c"):
        bench.registry.add(job_id)
    bench.settle()
    assert bench.runner.started == [(("a", 1), 1050.0), (("b", 1), 1050.0)]
    bench.runner.hear(("a", 1), "step 1")
    bench.runner.finish(("a", 1), DONE)
    bench.round(after=20)
    batch = bench.registry.batches[-1]
    assert [(event.event, event.detail) for event in batch.events] == [("progress", "step 1"), ("completed", "done")]
    assert (batch.renew, batch.claim, batch.heartbeat) == ((("b", 1),), 1, True)
    assert bench.runner.running == {("b", 1): 1070.0, ("c", 1): 1070.0}


def test_the_deadline_counts_from_before_the_call() -> None:
    bench = Bench(lease_sec=60)
    bench.registry.add("a")

    def slow() -> None:
        bench.clock.now += 10

    bench.registry.during = slow
    bench.round()
    assert bench.runner.started == [(("a", 1), 1050.0)]


def test_a_claim_that_took_longer_than_its_lease_is_not_started() -> None:
    bench = Bench(lease_sec=60)
    bench.registry.add("a")

    def suspended() -> None:
        bench.clock.now += 3600
        bench.registry.during = lambda: None

    bench.registry.during = suspended
    bench.round()
    assert bench.runner.started == []
    bench.round()
    (_what, attempt, back) = bench.registry.jobs["a"].log[0]
    assert attempt == 1 and isinstance(back, GiveBack) and not back.counts


def test_a_worker_that_wakes_up_after_its_lease_kills_before_it_asks() -> None:
    bench = Bench(lease_sec=60)
    bench.registry.add("a")
    bench.settle()
    bench.registry.failures = [busy()] * 10
    bench.round(after=3600)
    (stop,) = bench.runner.stops[("a", 1)]
    assert (stop.cause, stop.at_once) == (StopCause.DEADLINE, True)
    bench.registry.failures = []
    bench.runner.finish(("a", 1), Stopped())
    bench.round(after=1)
    back = bench.registry.jobs["a"].log[-1][2]
    assert isinstance(back, GiveBack) and back.counts and back.limit == 3


def test_leases_that_are_nearly_due_are_renewed_with_those_that_are() -> None:
    bench = Bench(lease_sec=60, concurrency=3)
    bench.registry.add("a")
    bench.settle()
    bench.registry.add("b")
    bench.round(after=4, changed=True)
    bench.registry.add("c")
    bench.round(after=10, changed=True)
    bench.round(after=6)
    assert bench.registry.batches[-1].renew == (("a", 1), ("b", 1))
    assert bench.runner.running == {("a", 1): 1070.0, ("b", 1): 1070.0, ("c", 1): 1064.0}


@pytest.mark.parametrize("error", [busy(), Unavailable("no server"), StorageFailed("the disk is full")])
def test_an_outcome_outlives_a_database_that_fails_for_a_while(error: JobdbError) -> None:
    bench = Bench()
    bench.registry.add("a")
    bench.settle()
    bench.runner.hear(("a", 1), "step 1")
    bench.runner.finish(("a", 1), DONE)
    bench.registry.failures = [error] * 8
    pauses = []
    for _ in range(8):
        due = bench.round()
        pauses.append(round(due - bench.clock.now, 3))
        bench.clock.now = due
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    bench.settle()
    assert [event.event for _, _, event in bench.registry.jobs["a"].log] == ["progress", "completed"]
    assert len([each for each in bench.transitions if isinstance(each, Trouble)]) == 8
    assert isinstance(bench.transitions[-1], Ended)


@pytest.mark.parametrize("error", [SyncFailed("the disk did not confirm it"), DatabaseReplaced("it was replaced")])
def test_a_database_that_cannot_be_used_any_more_ends_the_worker(error: JobdbError) -> None:
    bench = Bench()
    bench.registry.add("a")
    bench.settle()
    bench.registry.failures = [error]
    with pytest.raises(type(error)):
        bench.round(after=20)
    assert not bench.dispatcher.abandon()
    (stop,) = bench.runner.stops[("a", 1)]
    assert stop.at_once
    bench.runner.finish(("a", 1), Stopped())
    assert bench.dispatcher.abandon()
    assert isinstance(bench.transitions[-1], Lost)


def test_an_outcome_is_given_up_after_its_lease_by_a_worker_that_is_to_end() -> None:
    bench = Bench(lease_sec=60)
    bench.registry.add("a")
    bench.settle()
    bench.runner.finish(("a", 1), DONE)
    bench.registry.failures = [busy()] * 1000
    bench.round()
    bench.dispatcher.drain()
    bench.round(after=0.01)
    assert not bench.dispatcher.is_done
    bench.round(after=49)
    assert not bench.dispatcher.is_done
    while bench.clock.now < 1050:
        bench.round(after=0.01)
    bench.round()
    assert bench.dispatcher.is_done and isinstance(bench.transitions[-1], Lost)


def test_a_completion_whose_answer_was_lost_is_recognized() -> None:
    bench = Bench()
    bench.registry.add("a")
    bench.settle()

    def lose_answer() -> None:
        bench.registry.during = lambda: None
        job = bench.registry.jobs["a"]
        job.status = JobStatus.COMPLETED
        raise Unavailable("the connection broke at the commit")

    bench.registry.during = lose_answer
    bench.runner.finish(("a", 1), DONE)
    bench.round()
    bench.clock.now += 1
    bench.settle()
    (ended,) = [each for each in bench.transitions if isinstance(each, Ended)]
    assert ended.status == "completed" and bench.dispatcher.records.tally["completed"] == 1


def test_a_cancelled_job_is_terminated_and_nothing_more_is_written() -> None:
    bench = Bench()
    bench.registry.add("a")
    bench.settle()
    bench.registry.cancel("a")
    bench.runner.hear(("a", 1), "too late")
    bench.round(after=1.4)
    bench.round()
    (stop,) = bench.runner.stops[("a", 1)]
    assert (stop.cause, stop.at_once) == (StopCause.CANCELLED, False)
    bench.runner.hear(("a", 1), "later still")
    bench.runner.finish(("a", 1), DONE)
    bench.settle()
    assert bench.registry.jobs["a"].log == [] and isinstance(bench.transitions[-1], Lost)


def test_claims_are_checked_soon_after_a_change_and_rarely_without_one() -> None:
    bench = Bench()
    bench.registry.add("a")
    bench.settle()
    bench.registry.cancel("a")
    bench.round(after=0.2, changed=True)
    assert bench.runner.stops == {}  # it asked when it started
    bench.round(after=0.05)
    assert bench.runner.stops[("a", 1)][0].cause is StopCause.CANCELLED


def test_a_job_that_was_taken_over_is_killed_at_once() -> None:
    bench = Bench()
    bench.registry.add("a")
    bench.settle()
    bench.registry.take_away("a")
    bench.round(after=1.5)
    (stop,) = bench.runner.stops[("a", 1)]
    assert (stop.cause, stop.at_once) == (StopCause.TAKEN_OVER, True)
    bench.runner.finish(("a", 1), Failed(reason="killed"))
    bench.settle()
    assert bench.registry.jobs["a"].log == []


def test_a_refused_renewal_does_not_extend_the_deadline() -> None:
    bench = Bench(lease_sec=60)
    bench.registry.add("a")
    bench.settle()
    bench.round(after=1.5)
    bench.registry.take_away("a")
    bench.registry.failures = [None, busy()]  # the renewal is refused, and the state cannot be read
    bench.round(after=0.0)
    bench.clock.now = 1020.0
    bench.registry.failures = [busy()]
    bench.round()
    assert bench.runner.running == {("a", 1): 1050.0}


def test_a_drain_lets_finish_and_then_stops() -> None:
    bench = Bench(drain_sec=60, concurrency=2)
    for job_id in ("a", "b", "c"):
        bench.registry.add(job_id)
    bench.settle()
    bench.dispatcher.drain()
    bench.runner.finish(("a", 1), DONE)
    bench.round(after=30)
    assert bench.registry.jobs["a"].status is JobStatus.COMPLETED and bench.registry.jobs["c"].attempt == 0
    assert bench.runner.stops == {} and bench.registry.batches[-1].renew == (("b", 1),)
    bench.round(after=30)
    (stop,) = bench.runner.stops[("b", 1)]
    assert (stop.cause, stop.at_once) == (StopCause.DRAIN, False)
    bench.dispatcher.kill()
    bench.round(after=1)
    assert [each.at_once for each in bench.runner.stops[("b", 1)]] == [False, True]
    bench.runner.finish(("b", 1), Stopped())
    bench.settle()
    back = bench.registry.jobs["b"].log[-1][2]
    assert isinstance(back, GiveBack) and not back.counts and bench.dispatcher.is_done


def test_what_does_not_end_is_given_up_and_keeps_its_lease() -> None:
    bench = Bench()
    bench.registry.add("a")
    bench.settle()
    bench.dispatcher.kill()
    bench.round()
    due = bench.round()
    assert due - bench.clock.now <= 5.0 and not bench.dispatcher.is_done
    bench.round(after=5.0)
    assert bench.dispatcher.is_done and bench.registry.jobs["a"].status is JobStatus.RUNNING
    bench.runner.finish(("a", 1), DONE)
    bench.round()
    assert bench.registry.jobs["a"].log == []


def test_time_limits_stop_once_and_fail_the_job() -> None:
    bench = Bench()
    bench.registry.add("slow", timeout_sec=30)
    bench.registry.add("silent", idle_timeout_sec=30)
    bench.registry.add("asking", idle_timeout_sec=30)
    bench.settle()
    bench.round(after=10)
    bench.runner.hear(("silent", 1))
    bench.runner.hear(("asking", 1), kind=EventKind.PERMISSION_REQUIRED)
    bench.round()
    bench.round(after=20)
    assert bench.runner.stops[("slow", 1)][0].cause is StopCause.TIMEOUT
    bench.runner.finish(("slow", 1), DONE)  # too late
    bench.round()
    assert bench.registry.jobs["slow"].log[-1][2].data["reason"] == "timeout"
    bench.round(after=11)
    assert bench.runner.stops[("silent", 1)][0].cause is StopCause.IDLE
    bench.round(after=10_000)
    assert bench.runner.stops[("asking", 1)][0].cause is StopCause.DEADLINE  # nobody renewed it meanwhile


def test_a_runner_that_can_start_nothing_ends_the_worker() -> None:
    bench = Bench(concurrency=1)
    bench.registry.add("a")
    bench.registry.add("b")
    bench.settle()
    bench.runner.finish(("a", 1), NotStarted(reason="command not found: agent", exit_code=127))
    bench.settle()
    assert bench.dispatcher.is_done and bench.dispatcher.exit_code == 127
    assert bench.registry.jobs["a"].status is JobStatus.PENDING and bench.registry.jobs["b"].attempt == 0


def test_events_of_ten_thousand_are_written_in_pieces_and_before_the_end() -> None:
    bench = Bench()
    bench.registry.add("a")
    bench.settle()
    for number in range(1200):
        bench.runner.hear(("a", 1), str(number))
    bench.runner.finish(("a", 1), DONE)
    before = len(bench.registry.batches)
    bench.settle()
    details = [event.detail for _, _, event in bench.registry.jobs["a"].log]
    assert details == [*map(str, range(1200)), "done"]
    assert [len(batch.events) for batch in bench.registry.batches[before:]] == [500, 500, 201]


def test_an_idle_worker_asks_rarely_and_a_busy_database_does_not_change_that() -> None:
    bench = Bench()
    bench.settle()
    asked = len(bench.registry.batches)
    for _ in range(1000):  # others commit a hundred times a second, nothing of it for this worker
        bench.round(after=0.01, changed=True)
    assert 200 < len(bench.registry.batches) - asked < 300
    asked = len(bench.registry.batches)
    while bench.clock.now < 1060:
        bench.clock.now = max(bench.clock.now, bench.round())
    assert len(bench.registry.batches) - asked < 60


def test_a_job_given_back_with_a_delay_is_asked_for_when_it_is_due() -> None:
    bench = Bench(until_empty=True)
    bench.registry.add("a")
    bench.settle()
    bench.registry.failures = []
    bench.runner.finish(("a", 1), NotStarted(reason="not now", delay_sec=0.3))
    bench.round()
    assert isinstance(bench.transitions[-1], Returned) and not bench.dispatcher.is_done
    bench.registry.jobs["a"].status = JobStatus.RUNNING  # not claimable while it is delayed
    bench.settle()
    bench.registry.jobs["a"].status = JobStatus.PENDING
    due = bench.round()
    assert due == pytest.approx(1000.3)
    bench.clock.now = due
    bench.round()
    assert bench.runner.started[-1][0] == ("a", 2)


def test_an_event_that_cannot_be_published_is_told_and_stops_nothing() -> None:
    bench = Bench()
    bench.registry.add("a")
    bench.settle()
    bench.runner.finish(("a", 1), DONE)
    assert [type(each).__name__ for each in bench.transitions] == ["Claimed"]
    bench.settle()
    assert not any(isinstance(each, Stopping) for each in bench.transitions)
    assert all(isinstance(event, NewEvent) for _, _, event in bench.registry.jobs["a"].log)
