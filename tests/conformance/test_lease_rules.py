"""Test what a lease protects and demands, on every engine: silence, open questions, time limits, tries, attempts.

The rules are those of docs/explanation/lifecycle.md: a live lease protects a job from silence; reap gives back before
it ends; a claim takes what has an expired lease; a job under a lease is spoken for by its attempt.
"""

import pytest

from jobdb import AttemptRequired, EventKind, IllegalTransition, JobStatus, StaleAttempt
from tests.support.databases import START_MS
from tests.support.wire_events import signed


def register(registry, **limits):
    return registry.register(**{"agent": "a", "prompt": "", "timeout_sec": 0, **limits}).job_id


def reaped(registry):
    return [(one.job_id, one.action) for one in registry.reap()]


# -- silence


@pytest.mark.parametrize("idle_timeout_sec", [1, 30, 600])
def test_a_live_lease_protects_a_silent_job(registry, clock, idle_timeout_sec):
    job_id = register(registry, idle_timeout_sec=idle_timeout_sec)
    registry.claim(worker="w", lease_sec=60)
    for _ in range(20):
        clock.advance(59)
        assert registry.reap() == []
        registry.renew(job_id, attempt=1, lease_sec=60)
    assert registry.get(job_id).status is JobStatus.RUNNING and registry.events(job_id) == []


def test_without_a_lease_silence_ends_a_job(registry, clock):
    job_id = register(registry, idle_timeout_sec=30)
    registry.claim(worker="w", lease_sec=None)
    clock.advance(29)
    assert registry.reap() == []
    clock.advance(1)
    assert reaped(registry) == [(job_id, "ended")]
    assert registry.events(job_id)[-1].data["reason"] == "idle"


def test_silence_ends_no_job_that_does_not_ask_for_it(registry, clock):
    job_id = register(registry)
    assert registry.get(job_id).idle_timeout_sec == 0
    registry.claim(worker="w", lease_sec=None)
    clock.advance(10**6)
    assert registry.reap() == []


def test_an_open_question_stops_the_idle_clock_until_the_next_event(registry, clock):
    job_id = register(registry, idle_timeout_sec=30)
    registry.claim(worker="w", lease_sec=None)
    registry.publish(job_id, "permission_required")
    clock.advance(10**6)
    assert registry.reap() == []
    registry.publish(job_id, "progress")
    clock.advance(29)
    assert registry.reap() == []
    clock.advance(1)
    assert reaped(registry) == [(job_id, "ended")]


def test_neither_a_lease_nor_a_question_protects_from_the_time_limit(registry, clock):
    leased, asking = (register(registry, timeout_sec=100) for _ in range(2))
    registry.claim(worker="w", job_id=leased, lease_sec=3600)
    registry.claim(worker="w", job_id=asking, lease_sec=None)
    registry.publish(asking, "permission_required")
    clock.advance(99)
    assert registry.reap() == []
    clock.advance(1)
    assert reaped(registry) == [(leased, "ended"), (asking, "ended")]
    assert registry.events(leased)[-1].data["reason"] == "timeout"


# -- expired leases


def test_a_job_with_an_expired_lease_past_its_time_limit_is_given_back_not_ended(registry, clock):
    job_id = register(registry, timeout_sec=50, idle_timeout_sec=5)
    registry.claim(worker="w", lease_sec=10)
    clock.advance(1000)
    assert reaped(registry) == [(job_id, "returned")]
    assert registry.get(job_id).strikes == 1 and registry.events(job_id) == []
    assert registry.reap() == []
    # Its time limit counts from the next claim.
    assert registry.claim(worker="w2", lease_sec=3600).attempt == 2
    clock.advance(49)
    assert registry.reap() == []
    clock.advance(1)
    assert reaped(registry) == [(job_id, "ended")]


def test_a_bounded_reap_ends_nothing_that_it_has_yet_to_give_back(registry, clock):
    jobs = [register(registry, timeout_sec=5) for _ in range(5)]
    for _ in jobs:
        registry.claim(worker="w", lease_sec=5)
    clock.advance(6)
    done = [(one.job_id, one.action) for _ in range(3) for one in registry.reap(limit=2)]
    assert sorted(done) == sorted((job_id, "returned") for job_id in jobs)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_claim_takes_a_job_whose_lease_has_expired(registry, clock, by_name):
    job_id = register(registry)
    wanted = {"job_id": job_id} if by_name else {}
    registry.claim(worker="w1", lease_sec=10)
    clock.advance(9.999)
    if by_name:
        with pytest.raises(IllegalTransition, match="running"):
            registry.claim(worker="w2", **wanted)
    else:
        assert registry.claim(worker="w2") is None
    clock.advance(0.001)
    claim = registry.claim(worker="w2", **wanted)
    assert (claim.job_id, claim.attempt, claim.worker, claim.job.strikes) == (job_id, 2, "w2", 1)
    for verb in (registry.renew, registry.release, registry.complete):
        with pytest.raises(StaleAttempt, match="attempt 2"):
            verb(job_id, attempt=1)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_claim_that_finds_the_last_try_used_up_ends_the_job(registry, clock, by_name):
    job_id = register(registry, max_attempts=1)
    registry.claim(worker="w1", lease_sec=10)
    clock.advance(10)
    if by_name:
        with pytest.raises(IllegalTransition, match="error"):
            registry.claim(worker="w2", job_id=job_id)
    else:
        assert registry.claim(worker="w2") is None
    job = registry.get(job_id)
    assert (job.status, job.attempt, job.detail) == (
        JobStatus.ERROR,
        1,
        "the lease of w1 ran out at attempt 1, strike 1 of 1",
    )
    assert [event.event for event in registry.events(job_id)] == ["error"]
    assert registry.reap() == []


def test_a_job_waits_for_no_reaper(registry, clock):
    """Work goes on with claims alone until the last try of every job."""
    jobs = [register(registry) for _ in range(3)]
    for attempt in (1, 2, 3):
        assert [registry.claim(worker="w", lease_sec=5).attempt for _ in jobs] == [attempt] * 3
        clock.advance(5)
    assert registry.claim(worker="w") is None
    assert {registry.get(job_id).status for job_id in jobs} == {JobStatus.ERROR}


@pytest.mark.parametrize("by_name", [True, False])
def test_a_lease_that_was_granted_while_a_clock_was_ahead_costs_no_try(registry, clock, by_name):
    """Named, the job is claimed at once; unnamed, after the next reap."""
    job_id = register(registry, max_attempts=1)
    clock.advance(10**6)
    registry.claim(worker="w1", lease_sec=60)
    clock.advance(-(10**6))
    assert clock.now_ms == START_MS
    if not by_name:
        assert registry.claim(worker="w2") is None
        assert reaped(registry) == [(job_id, "returned")]
    claim = registry.claim(worker="w2", job_id=job_id if by_name else None)
    assert (claim.attempt, claim.job.strikes) == (2, 0)
    assert "a clock was ahead" in claim.job.detail


# -- tries


@pytest.mark.parametrize(("max_attempts", "tries"), [(None, 3), (1, 1), (2, 2), (5, 5)])
def test_max_attempts_is_how_many_leases_may_expire(registry, clock, max_attempts, tries):
    job_id = register(registry, max_attempts=max_attempts)
    assert registry.get(job_id).max_attempts == max_attempts
    for attempt in range(1, tries + 1):
        assert registry.claim(worker="w", lease_sec=5).attempt == attempt
        clock.advance(5)
        assert reaped(registry) == [(job_id, "returned" if attempt < tries else "ended")]
    assert registry.get(job_id).detail.endswith(f"strike {tries} of {tries}")


def test_a_jobs_own_tries_count_more_than_the_limit_of_a_reaper(registry, clock):
    own, common = register(registry, max_attempts=4), register(registry)
    for _ in range(2):
        registry.claim(worker="w", lease_sec=5)
    clock.advance(5)
    assert sorted((one.job_id, one.action) for one in registry.reap(strike_limit=1)) == sorted(
        [(own, "returned"), (common, "ended")]
    )


# -- delays


def test_a_delayed_job_is_claimed_by_nobody_before_it_is_due(registry, clock):
    job_id = register(registry)
    registry.claim(worker="w")
    job = registry.release(job_id, attempt=1, delay_sec=30, reason="the service is down")
    assert (job.status, job.detail, job.strikes) == (JobStatus.PENDING, "the service is down", 0)
    assert job.not_before.timestamp() * 1000 == clock.now_ms + 30_000
    clock.advance(29)
    assert registry.claim(worker="w") is None
    with pytest.raises(IllegalTransition, match="not due before"):
        registry.claim(worker="w", job_id=job_id)
    clock.advance(1)
    claim = registry.claim(worker="w")
    assert (claim.job_id, claim.attempt, claim.job.not_before) == (job_id, 2, None)


def test_a_delayed_job_is_claimed_by_name_once_it_is_due(registry, clock):
    job_id = register(registry)
    registry.claim(worker="w")
    registry.release(job_id, attempt=1, delay_sec=30)
    clock.advance(30)
    assert registry.claim(worker="w", job_id=job_id).job.not_before is None


@pytest.mark.parametrize("by_name", [True, False])
def test_a_delay_from_a_clock_that_was_ahead_is_void(registry, clock, by_name):
    job_id = register(registry)
    clock.advance(10**6)
    registry.claim(worker="w", lease_sec=None)
    registry.release(job_id, attempt=1, delay_sec=30)
    clock.advance(-(10**6))
    if not by_name:
        assert registry.claim(worker="w") is None
        registry.reap()
    assert registry.claim(worker="w", job_id=job_id if by_name else None).attempt == 2


@pytest.mark.parametrize("how", ["publish", "complete", "cancel"])
def test_whatever_starts_or_ends_a_delayed_job_ends_the_delay(registry, clock, how):
    job_id = register(registry)
    registry.claim(worker="w")
    registry.release(job_id, attempt=1, delay_sec=30)
    if how == "publish":
        registry.publish(job_id, "progress")
    else:
        getattr(registry, how)(job_id)
    job = registry.get(job_id)
    assert job.not_before is None and job.status is not JobStatus.PENDING
    clock.advance(60)
    assert registry.claim(worker="w") is None


# -- attempts


def test_a_job_under_a_lease_demands_its_attempt(registry, job):
    registry.claim(worker="host1:4711", lease_sec=60)
    calls = [
        *((lambda kind=kind: registry.publish(job.job_id, kind)) for kind in EventKind),
        lambda: registry.complete(job.job_id),
        lambda: registry.fail(job.job_id),
        lambda: registry.renew(job.job_id),
        lambda: registry.release(job.job_id),
    ]
    before = registry.get(job.job_id)
    for call in calls:
        with pytest.raises(AttemptRequired, match="host1:4711 holds it under a lease as attempt 1") as refused:
            call()
        assert "pass attempt=1" in str(refused.value)
    assert registry.get(job.job_id) == before and registry.events(job.job_id) == []
    registry.renew(job.job_id, attempt=1)
    registry.publish(job.job_id, "progress", attempt=1)
    registry.complete(job.job_id, attempt=1)


def test_an_expired_lease_that_nobody_took_still_demands_the_attempt_and_takes_it(registry, clock, job):
    registry.claim(worker="w", lease_sec=5)
    clock.advance(6)
    with pytest.raises(AttemptRequired):
        registry.publish(job.job_id, "progress")
    assert registry.publish(job.job_id, "progress", attempt=1).seq == 1
    assert registry.renew(job.job_id, attempt=1, lease_sec=60).attempt == 1
    assert registry.reap() == []
    registry.complete(job.job_id, attempt=1)


def test_without_a_lease_nobody_has_to_name_the_attempt(registry, job):
    registry.claim(worker="w", lease_sec=None)
    assert registry.publish(job.job_id, "progress").attempt == 1
    for verb in (registry.renew, registry.release):  # they are about a claim, and a claim is named by its attempt
        with pytest.raises(AttemptRequired, match="w holds it as attempt 1"):
            verb(job.job_id)
    registry.complete(job.job_id)


@pytest.mark.parametrize("status", ["pending", "running", "completed"])
def test_a_job_without_a_claim_has_none_to_renew_or_release(registry, job, status):
    if status != "pending":
        registry.publish(job.job_id, "progress" if status == "running" else status)
    for verb in (registry.renew, registry.release):
        with pytest.raises(StaleAttempt, match="without"):
            verb(job.job_id)


def test_cancel_and_accept_need_no_attempt(registry, job):
    registry.claim(worker="w", lease_sec=60)
    line = signed(job.job_id, 1, token=registry.tokens.show(job.job_id), attempt=1)
    assert registry.accept(line, subscriber="s").verdict == "accepted"
    assert registry.cancel(job.job_id).status is JobStatus.CANCELLED
