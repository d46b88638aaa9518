"""``Registry.working``: a claim that is kept alive by a block, and what the end of the block becomes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from jobdb import Busy, Claim, InvalidInput, JobStatus, Registry, StaleAttempt
from jobdb.registry import working
from jobdb.registry.cancellation import CancellationToken
from jobdb.work import RetryLater, WorkCancelled
from tests.support.waiting import wait_until


def claim(registry: Registry, **options: Any) -> Claim:
    registry.register(agent="codex", prompt="sort", job_id="job", **options)
    found = registry.claim(worker="host1:7", lease_sec=60)
    assert found is not None
    return found


def test_the_end_of_the_block_completes_the_job(registry: Registry) -> None:
    manager = registry.working(claim(registry))
    with manager as work:
        work.progress("half of it", pct=50, data={"file": "a"})
        assert (work.job.job_id, work.attempt, work.cancelled, work.reason, work.lost) == ("job", 1, False, None, None)
        assert registry.get("job").status is JobStatus.RUNNING
        work.set_result("all sorted", {"files": 3})
    progress, end = registry.events("job")
    assert (progress.detail, progress.data["pct"], progress.data["file"]) == ("half of it", 50, "a")
    assert (end.event, end.detail, end.data["files"]) == ("completed", "all sorted", 3)
    assert manager.outcome == "completed"


def test_an_exception_ends_the_job_and_leaves_the_block(registry: Registry) -> None:
    manager = registry.working(claim(registry))
    with pytest.raises(ValueError, match="no input"), manager:
        raise ValueError("no input")
    end = registry.events("job")[-1]
    assert (end.event, end.detail, end.data["exception"]) == ("error", "ValueError: no input", "ValueError")
    assert manager.outcome == "failed"


def test_a_job_with_tries_left_is_given_back(registry: Registry) -> None:
    with pytest.raises(ValueError), registry.working(claim(registry, max_attempts=2)):
        raise ValueError("no input")
    job = registry.get("job")
    assert (job.status, job.strikes, job.detail) == (JobStatus.PENDING, 1, "ValueError: no input")


def test_retry_later_gives_back_and_stays_in_the_block(registry: Registry) -> None:
    manager = registry.working(claim(registry, max_attempts=1))
    with manager:
        raise RetryLater(3600, "the model is overloaded")
    job = registry.get("job")
    assert (job.status, job.strikes, job.detail) == (JobStatus.PENDING, 0, "the model is overloaded")
    assert registry.claim(worker="w") is None and manager.outcome == "returned"


def test_ctrl_c_gives_back(registry: Registry) -> None:
    with pytest.raises(KeyboardInterrupt), registry.working(claim(registry, max_attempts=1)):
        raise KeyboardInterrupt
    job = registry.get("job")
    assert (job.status, job.strikes) == (JobStatus.PENDING, 0)


def test_the_lease_is_renewed(registry: Registry) -> None:
    with registry.working(claim(registry), lease_sec=0.6):
        first = registry.get("job").lease_expires_at
        assert first is not None
        wait_until(lambda: (registry.get("job").lease_expires_at or first) > first)
        time.sleep(0.7)  # longer than the lease
        assert registry.reap() == []
    assert registry.get("job").status is JobStatus.COMPLETED


def test_a_cancelled_job_is_noticed(registry: Registry) -> None:
    manager = registry.working(claim(registry))
    with manager as work:
        registry.cancel("job")
        assert work.wait(60)
        assert (work.cancelled, work.lost) == (True, "job job was cancelled")
    assert manager.outcome == "lost"


def test_progress_of_a_lost_claim_leaves_the_block_quietly(registry: Registry) -> None:
    manager = registry.working(claim(registry))
    with manager as work:
        registry.release("job", attempt=1)
        while True:
            work.progress("on and on")
    assert manager.outcome == "lost" and registry.get("job").status is JobStatus.PENDING


def test_wait_and_raise_if_cancelled(registry: Registry) -> None:
    with registry.working(claim(registry)) as work:
        assert not work.wait(0.01)
        work.raise_if_cancelled()
        registry.cancel("job")
        assert work.wait(60)
        with pytest.raises(WorkCancelled, match="job job was cancelled"):
            work.raise_if_cancelled()


def test_work_that_was_in_vain_is_told(registry: Registry) -> None:
    with pytest.raises(StaleAttempt, match="its outcome is not recorded"), registry.working(claim(registry)):
        registry.cancel("job")
    assert registry.get("job").status is JobStatus.CANCELLED


def test_an_exception_hides_that_the_claim_is_gone(registry: Registry) -> None:
    with pytest.raises(ValueError), registry.working(claim(registry)):
        registry.cancel("job")
        raise ValueError("no input")


def test_a_claim_that_is_gone_at_the_beginning_is_refused(registry: Registry) -> None:
    found = claim(registry)
    registry.release("job", attempt=1)
    with pytest.raises(StaleAttempt), registry.working(found):
        raise AssertionError("the block must not begin")


def test_the_deadline_counts_even_if_nobody_can_say_so(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: Any, **options: Any) -> Any:
        raise Busy("the database is locked", waited_sec=0.0)

    with registry.working(claim(registry), lease_sec=0.6) as work:
        for name in ("renew", "claim_states"):
            monkeypatch.setattr(registry, name, unreachable)
        assert work.wait(60) and work.lost == "the lease of the claim ran out before it was renewed"
        monkeypatch.undo()


def test_an_outcome_is_recorded_once_the_database_can_be_used(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish: Callable[..., Any] = registry.publish
    failures = [1, 2]

    def sometimes(*arguments: Any, **options: Any) -> Any:
        if failures:
            failures.pop()
            raise Busy("the database is locked", waited_sec=0.0)
        return publish(*arguments, **options)

    monkeypatch.setattr(working, "_RETRY_SEC", 0.01)
    with registry.working(claim(registry)):
        monkeypatch.setattr(registry, "publish", sometimes)
    assert registry.get("job").status is JobStatus.COMPLETED and not failures


@pytest.mark.parametrize(
    "bad",
    [
        lambda work: work.progress(detail=5),
        lambda work: work.progress(pct=101),
        lambda work: work.progress(pct="5"),
        lambda work: work.progress(data=[1]),
        lambda work: work.progress(data={"x": object()}),
        lambda work: work.set_result(data=5),
        lambda work: work.wait(-1),
        lambda work: RetryLater(-1),
        lambda work: RetryLater(1, ""),
    ],
)
def test_bad_arguments_are_refused(registry: Registry, bad: Callable[[Any], Any]) -> None:
    with registry.working(claim(registry)) as work, pytest.raises(InvalidInput):
        bad(work)
    assert [event.event for event in registry.events("job")] == ["completed"]


@pytest.mark.parametrize("bad", [{"claim": "job"}, {"lease_sec": 0}, {"lease_sec": "60"}])
def test_bad_claims_and_leases_are_refused(registry: Registry, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        registry.working(**{"claim": claim(registry), **bad})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_token_knows_its_deadline_and_its_first_reason() -> None:
    clock = Clock()
    token = CancellationToken(150.0, clock=clock)
    assert not token.check() and not token.ask()
    token.extend(200.0)
    clock.now = 199.9
    assert not token.check()
    clock.now = 200.0
    assert token.check() and token.lost and not token.told
    token.extend(300.0)  # too late
    token.cancel("another reason", lost=True)
    assert token.reason == "the lease of the claim ran out before it was renewed" and token.ask() and token.told


def test_a_cancelled_token_may_still_lose_its_claim() -> None:
    token = CancellationToken(150.0, clock=Clock())
    token.cancel("the worker was stopped", lost=False)
    assert token.check() and not token.lost
    token.cancel("taken over", lost=True)
    assert (token.reason, token.lost) == ("the worker was stopped", True)
