"""A worker that calls a handler in threads: what the end of a handler becomes, and how it is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from jobdb import InvalidInput, JobStatus, NewJob, Registry
from jobdb.work import RetryLater, Work, WorkCancelled, Worker
from jobdb.work.transitions import (
    Claimed,
    Draining,
    Ended,
    Lost,
    Published,
    Returned,
    Started,
    Stopping,
    WorkerEnded,
    WorkerStarted,
)
from tests.support.waiting import wait_until
from tests.support.workers import BackgroundWorker

StartWorker = Callable[..., BackgroundWorker]


def register(registry: Registry, job_id: str, **options: Any) -> None:
    registry.register(agent="codex", prompt="sort", job_id=job_id, **options)


def test_every_job_is_done_once_by_all_slots(registry: Registry) -> None:
    registry.register_many([NewJob(agent="codex", prompt=str(number), job_id=f"job-{number}") for number in range(60)])
    done: list[str] = []
    summary = Worker(registry, lambda work: done.append(work.job.job_id), until_empty=True, concurrency=4).run()
    assert sorted(done) == sorted(f"job-{number}" for number in range(60))
    assert (summary.claimed, summary.completed, summary.failed, summary.lost) == (60, 60, 0, 0)
    assert registry.count_by_status()[JobStatus.COMPLETED] == 60 and registry.workers() == []


def test_what_a_handler_returns_is_what_completed_says(registry: Registry) -> None:
    for job_id in ("nothing", "text", "data", "result"):
        register(registry, job_id)

    def handler(work: Work) -> object:
        if work.job.job_id == "result":
            work.set_result("set", {"files": 3})
        return {"text": "all sorted", "data": {"lines": 7}}.get(work.job.job_id)

    Worker(registry, handler, until_empty=True).run()
    ends = {job_id: registry.events(job_id)[-1] for job_id in ("nothing", "text", "data", "result")}
    assert {job_id: event.event for job_id, event in ends.items()} == dict.fromkeys(ends, "completed")
    assert ends["nothing"].detail == "" and ends["text"].detail == "all sorted"
    assert ends["data"].data["lines"] == 7
    assert (ends["result"].detail, ends["result"].data["files"]) == ("set", 3)


def test_progress_is_recorded_in_order_and_before_the_end(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "steps")

    def handler(work: Work) -> None:
        for step in range(2500):  # more than may wait at a time
            work.progress(f"step {step}", pct=step / 25, data={"step": step})

    worker = start_worker(handler, until_empty=True)
    worker.join()
    events = list(registry.all_events("steps"))
    assert [event.data.get("step") for event in events] == [*range(2500), None]
    assert events[50].data["pct"] == 2 and events[-1].event == "completed"
    assert len(worker.of(Published)) == 2500


def test_an_exception_ends_the_job_with_its_type_and_message(registry: Registry) -> None:
    register(registry, "broken")

    def handler(work: Work) -> None:
        raise ValueError("no input\0 \ud800")

    summary = Worker(registry, handler, until_empty=True).run()
    assert (summary.failed, summary.completed) == (1, 0)
    end = registry.events("broken")[-1]
    assert end.event == "error" and end.detail.startswith("ValueError: no input")
    assert end.data["exception"] == "ValueError"


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), WorkCancelled("by the handler itself")])
def test_no_exception_of_a_handler_ends_the_worker(registry: Registry, raised: BaseException) -> None:
    register(registry, "broken")
    register(registry, "sound")

    def handler(work: Work) -> None:
        if work.job.job_id == "broken":
            raise raised

    Worker(registry, handler, until_empty=True, concurrency=1).run()
    assert registry.get("broken").status is JobStatus.ERROR
    assert registry.get("sound").status is JobStatus.COMPLETED


def test_a_job_with_tries_left_is_tried_again(registry: Registry) -> None:
    register(registry, "flaky", max_attempts=3)
    attempts: list[int] = []

    def handler(work: Work) -> None:
        attempts.append(work.attempt)
        if work.attempt < 2:
            raise OSError("not yet")

    reported: list[Any] = []
    Worker(registry, handler, until_empty=True, on_event=reported.append).run()
    assert attempts == [1, 2]
    job = registry.get("flaky")
    assert (job.status, job.strikes) == (JobStatus.COMPLETED, 1)
    (returned,) = [each for each in reported if isinstance(each, Returned)]
    assert returned.counts and returned.delay_sec == 1.0 and returned.reason == "OSError: not yet"


def test_retry_later_uses_up_no_try(registry: Registry) -> None:
    register(registry, "later", max_attempts=1)

    def handler(work: Work) -> None:
        if work.attempt < 3:
            raise RetryLater(0.01, "the model is overloaded")

    summary = Worker(registry, handler, until_empty=True).run()
    job = registry.get("later")
    assert (job.status, job.strikes, job.attempt) == (JobStatus.COMPLETED, 0, 3)
    assert (summary.returned, summary.failed) == (2, 0)


def test_what_cannot_be_published_is_refused_where_it_is_said(registry: Registry) -> None:
    register(registry, "progress")
    register(registry, "result")
    refused: list[str] = []

    def handler(work: Work) -> Any:
        if work.job.job_id == "result":
            return {"value": float("nan")}
        for bad in (lambda: work.progress(data={"x": object()}), lambda: work.progress(pct=101)):
            with pytest.raises(InvalidInput) as caught:
                bad()
            refused.append(str(caught.value))
        return None

    Worker(registry, handler, until_empty=True).run()
    assert len(refused) == 2 and registry.get("progress").status is JobStatus.COMPLETED
    end = registry.events("result")[-1]
    assert end.event == "error" and "the handler's result cannot be published" in end.detail


def test_a_cancelled_job_is_told_to_stop(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "endless")
    seen: list[tuple[bool, str | None]] = []

    def handler(work: Work) -> None:
        seen.append((work.wait(60), work.lost))
        work.progress("too late")

    worker = start_worker(handler)
    worker.wait_for(Started)
    registry.cancel("endless")
    lost = worker.wait_for(Lost)
    assert seen == [(True, "job endless was cancelled")] and lost.reason == "job endless was cancelled"
    assert worker.wait_for(Stopping).cause == "cancelled"
    assert worker.drain().lost == 1
    assert [event.event for event in registry.events("endless")] == []


def test_a_job_that_others_took_over_is_told_to_stop(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "taken")
    worker = start_worker(lambda work: work.wait(60))
    worker.wait_for(Started)
    registry.release("taken", attempt=1)
    assert worker.wait_for(Stopping).cause == "taken_over"
    worker.wait_for(Lost)
    second = worker.wait_for(Claimed, 2)
    assert second.attempt == 2


def test_a_new_job_is_taken_when_it_is_registered(registry: Registry, start_worker: StartWorker) -> None:
    worker = start_worker(lambda work: None)
    worker.wait_for(WorkerStarted)
    for number in range(3):
        register(registry, f"job-{number}")
        worker.wait_for(Ended, number + 1)
    assert worker.drain().completed == 3
    assert isinstance(worker.transitions[-1], WorkerEnded)


def test_only_jobs_of_its_agent_and_session_are_taken(registry: Registry) -> None:
    registry.register(agent="codex", prompt="p", job_id="mine", agent_session="s1")
    registry.register(agent="codex", prompt="p", job_id="session", agent_session="s2")
    registry.register(agent="other", prompt="p", job_id="agent", agent_session="s1")
    summary = Worker(registry, lambda work: None, agent="codex", agent_session="s1", until_empty=True).run()
    assert summary.claimed == 1 and registry.get("mine").status is JobStatus.COMPLETED


def test_once_does_one_job_and_waits_for_it(registry: Registry, start_worker: StartWorker) -> None:
    worker = start_worker(lambda work: None, once=True)
    worker.wait_for(WorkerStarted)
    register(registry, "first")
    assert worker.join().claimed == 1
    assert Worker(registry, lambda work: None, once=True, until_empty=True).run().claimed == 0


def test_leases_are_renewed_and_work_goes_on(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "long")
    go_on = threading.Event()
    worker = start_worker(lambda work: go_on.wait(60), lease_sec=0.6)
    worker.wait_for(Started)
    first = registry.get("long").lease_expires_at
    assert first is not None
    wait_until(lambda: (registry.get("long").lease_expires_at or first) > first)
    time.sleep(0.7)  # longer than the lease
    assert registry.reap() == []
    go_on.set()
    worker.wait_for(Ended)
    assert registry.get("long").attempt == 1


def test_announce_publishes_started(registry: Registry) -> None:
    register(registry, "announced")
    Worker(registry, lambda work: None, announce=True, until_empty=True, name="host1:7").run()
    first, last = registry.events("announced")
    assert (first.event, first.data["worker"], last.event) == ("started", "host1:7", "completed")


def test_a_worker_shows_itself_while_it_runs(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "long")
    worker = start_worker(lambda work: work.wait(60), concurrency=3, name="host1:7", agent="codex")
    worker.wait_for(Started)
    (record,) = registry.workers()
    assert (record.info.name, record.info.slots, record.info.agent) == ("host1:7", 3, "codex")
    assert record.running == (("long", 1),)
    (attempt,) = registry.attempts("long")
    assert (attempt.worker, attempt.worker_id, attempt.log) == ("host1:7", worker.worker.worker_id, None)


# -- drain and stop


def test_drain_waits_for_what_runs(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "running")
    go_on = threading.Event()
    worker = start_worker(lambda work: go_on.wait(60), concurrency=1)
    worker.wait_for(Started)
    register(registry, "waiting")
    worker.worker.drain()
    assert worker.wait_for(Draining).running == ("running",)
    go_on.set()
    assert worker.join().completed == 1
    assert registry.get("waiting").status is JobStatus.PENDING


def test_the_end_of_a_drain_gives_back_what_runs(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "endless", max_attempts=1)
    worker = start_worker(lambda work: work.wait(60), drain_sec=0)
    worker.wait_for(Started)
    summary = worker.drain()
    assert (summary.returned, summary.failed) == (1, 0)
    job = registry.get("endless")
    assert (job.status, job.strikes, job.detail) == (JobStatus.PENDING, 0, "the worker was stopped")


def test_a_handler_that_ends_without_having_looked_has_done_its_job(
    registry: Registry, start_worker: StartWorker
) -> None:
    register(registry, "deaf")
    go_on = threading.Event()
    worker = start_worker(lambda work: go_on.wait(60), drain_sec=0)
    worker.wait_for(Started)
    worker.worker.drain()
    worker.wait_for(Stopping)
    go_on.set()
    assert worker.join().completed == 1


def test_stop_gives_back_at_once(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "endless")
    worker = start_worker(lambda work: work.wait(60))
    worker.wait_for(Started)
    worker.worker.drain()
    worker.wait_for(Draining)
    worker.worker.stop()
    assert worker.join().returned == 1
    assert registry.get("endless").status is JobStatus.PENDING


def test_a_handler_that_never_returns_keeps_its_claim_and_the_worker_ends(
    registry: Registry, start_worker: StartWorker
) -> None:
    from jobdb.work.thread_runner import ThreadRunner

    register(registry, "stuck")
    go_on = threading.Event()
    worker = start_worker(ThreadRunner(lambda work: go_on.wait(60), patience_sec=0.1), drain_sec=0)
    worker.wait_for(Started)
    summary = worker.drain()
    go_on.set()
    # Nobody else may begin while it runs: only the end of the lease frees the job.
    assert summary.lost == 1 and registry.get("stuck").status is JobStatus.RUNNING


# -- time limits


def test_a_job_past_its_timeout_ends_as_error(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "slow", timeout_sec=1)
    worker = start_worker(lambda work: work.wait(60))
    ended = worker.wait_for(Ended)
    assert ended.status == "error" and ended.detail == "timed out: running for more than 1 s"
    assert registry.events("slow")[-1].data["reason"] == "timeout"


def test_a_silent_job_ends_only_if_it_asked_for_that(registry: Registry, start_worker: StartWorker) -> None:
    register(registry, "silent", idle_timeout_sec=1)
    register(registry, "patient")
    worker = start_worker(lambda work: work.wait(60))
    ended = worker.wait_for(Ended)
    assert (ended.job_id, ended.status) == ("silent", "error")
    assert registry.events("silent")[-1].data["reason"] == "idle"
    assert registry.get("patient").status is JobStatus.RUNNING


# -- the worker itself


def test_a_worker_runs_once(registry: Registry) -> None:
    worker = Worker(registry, lambda work: None, until_empty=True)
    worker.run()
    with pytest.raises(InvalidInput, match="a Worker runs once"):
        worker.run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency must be 1"),
        ({"lease_sec": 0.1}, "lease_sec must be at least 0.5"),
        ({"drain_sec": -1}, "drain_sec must be 0"),
        ({"executor": "fibers"}, "executor must be"),
        ({"once": 1}, "once must be True or False"),
        ({"name": ""}, "name must have 1"),
        ({"handler": 5}, "handler must be a function"),
    ],
)
def test_invalid_arguments_are_refused(registry: Registry, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Worker(registry, **{"handler": lambda work: None, **options})


def test_whoever_watches_cannot_end_the_work(registry: Registry) -> None:
    register(registry, "job")

    def fail(transition: object) -> None:
        raise RuntimeError("the watcher is broken")

    assert Worker(registry, lambda work: None, until_empty=True, on_event=fail).run().completed == 1
