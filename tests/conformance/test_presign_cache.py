"""Test a process that publishes a job's events in a row while others change the job, on every engine.

An engine may sign an event before its transaction begins, from what its process last saw of the job. A change by
another process since then must have the same effect as without this.
"""

import pytest

from jobdb import (
    AttemptRequired,
    Broker,
    EventKind,
    IllegalTransition,
    JobStatus,
    KeyProblem,
    NewEvent,
    NewJob,
    StaleAttempt,
    UnknownJob,
)
from jobdb.core.protocol import parse, verify


@pytest.fixture
def other_registry(database):
    """Another process's registry on the same database."""
    with database.open() as second:
        yield second


@pytest.fixture(params=[None, 1], ids=["unfenced", "fenced"])
def attempt(request):
    """The attempt that publishers name: none for a claim without a lease, which a worker of old may hold."""
    return request.param


@pytest.fixture
def published_job(registry, job, attempt):
    """A claimed job whose last event came from ``registry``."""
    registry.claim(worker="w", job_id=job.job_id, lease_sec=None if attempt is None else 300)
    registry.publish(job.job_id, "progress", attempt=attempt)
    registry.publish(job.job_id, "progress", attempt=attempt)
    return job.job_id


def test_seqs_stay_gapless_for_alternating_publishers(registry, other_registry, published_job, attempt):
    for number in range(3, 13):
        publisher = (registry, other_registry)[number // 3 % 2]
        assert publisher.publish(published_job, "progress", detail=str(number), attempt=attempt).seq == number
    events = registry.events(published_job)
    token = registry.tokens.show(published_job)
    assert [event.seq for event in events] == list(range(1, 13))
    assert all(verify(parse(event.payload), token) for event in events)
    assert registry.get(published_job).detail == "12"


def test_a_batch_between_two_single_events(registry, published_job, attempt):
    registry.publish_many([NewEvent(job_id=published_job, event=EventKind.PROGRESS, attempt=attempt)] * 3)
    assert registry.publish(published_job, "progress", attempt=attempt).seq == 6
    assert registry.publish(published_job, "progress", attempt=attempt).seq == 7


def test_a_token_rotated_elsewhere_signs_the_next_event(registry, other_registry, published_job, attempt):
    other_registry.tokens.rotate(published_job)
    wire = parse(registry.publish(published_job, "progress", attempt=attempt).payload)
    assert wire.kid == 2 and verify(wire, other_registry.tokens.show(published_job))


def test_a_token_revoked_elsewhere_signs_nothing_more(registry, other_registry, published_job, attempt):
    other_registry.tokens.revoke(published_job, 1)
    with pytest.raises(KeyProblem, match="rotate"):
        registry.publish(published_job, "progress", attempt=attempt)
    assert registry.get(published_job).last_seq == 2 and len(registry.events(published_job)) == 2


def test_a_job_that_ended_elsewhere_publishes_no_more(registry, other_registry, published_job, attempt):
    other_registry.publish(published_job, "completed", attempt=attempt)
    with pytest.raises(IllegalTransition, match="completed"):
        registry.publish(published_job, "progress", attempt=attempt)
    assert registry.get(published_job).last_seq == 3


def test_a_job_cancelled_elsewhere_publishes_no_more(registry, other_registry, published_job, attempt):
    other_registry.cancel(published_job)
    with pytest.raises(IllegalTransition, match="cancelled"):
        registry.publish(published_job, "progress", attempt=attempt)


def test_a_claim_taken_over_elsewhere_fences_the_old_one(registry, other_registry, published_job, attempt):
    other_registry.release(published_job, attempt=1)
    lease_sec = None if attempt is None else 300
    assert other_registry.claim(worker="successor", job_id=published_job, lease_sec=lease_sec).attempt == 2
    with pytest.raises(StaleAttempt, match="attempt 2"):
        registry.publish(published_job, "progress", attempt=1)
    if attempt is not None:
        with pytest.raises(AttemptRequired, match="successor holds it under a lease as attempt 2"):
            registry.publish(published_job, "progress")
    event = registry.publish(published_job, "progress", attempt=attempt and 2)
    assert (event.seq, event.attempt) == (3, 2)


def test_an_event_without_an_attempt_is_refused_once_a_lease_is_granted_elsewhere(registry, other_registry, job):
    registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    for _ in range(2):
        registry.publish(job.job_id, "progress")
    other_registry.renew(job.job_id, attempt=1, lease_sec=300)
    with pytest.raises(AttemptRequired, match="pass attempt=1"):
        registry.publish(job.job_id, "progress")
    assert registry.get(job.job_id).last_seq == 2
    assert registry.publish(job.job_id, "progress", attempt=1).seq == 3


def test_a_job_released_elsewhere_continues_under_a_new_attempt(registry, other_registry, published_job):
    other_registry.release(published_job, attempt=1)
    with pytest.raises(StaleAttempt):
        registry.publish(published_job, "progress", attempt=1)
    assert registry.publish(published_job, "progress").attempt == 2
    assert registry.get(published_job).status is JobStatus.RUNNING


def test_a_job_pruned_elsewhere_is_unknown_even_if_its_id_is_reused(
    registry, other_registry, published_job, clock, attempt
):
    other_registry.publish(published_job, "completed", attempt=attempt)
    clock.advance(10)
    assert other_registry.prune(older_than_sec=1) == [published_job]
    with pytest.raises(UnknownJob):
        registry.publish(published_job, "progress", attempt=attempt)
    other_registry.register(agent="a", prompt="", job_id=published_job)
    other_registry.claim(worker="w", job_id=published_job, lease_sec=None if attempt is None else 300)
    assert registry.publish(published_job, "progress", attempt=attempt).seq == 1


def test_every_event_is_queued_for_delivery(registry):
    job_id = registry.register(agent="a", prompt="", broker=Broker("localhost")).job_id
    for _ in range(4):
        registry.publish(job_id, "progress")
    assert [delivery.seq for delivery in registry.engine.outbox(after=0, limit=10)] == [1, 2, 3, 4]


def test_jobs_without_a_token_stay_unsigned_until_they_get_one(registry, other_registry):
    job_id = registry.register(agent="a", prompt="", auth="never").job_id
    for _ in range(3):
        assert "hmac" not in registry.publish(job_id, "progress").payload
    other_registry.tokens.rotate(job_id)
    wire = parse(registry.publish(job_id, "progress").payload)
    assert wire.seq == 4 and verify(wire, other_registry.tokens.show(job_id))


def test_each_event_and_job_record_is_complete(registry, clock, published_job, attempt):
    for seq, kind in enumerate(("progress", "permission_required", "started", "progress"), start=3):
        clock.advance(1)
        event = registry.publish(published_job, kind, detail=f"step {seq}", data={"pct": seq}, attempt=attempt)
        assert (event.seq, event.event, event.attempt, event.detail) == (seq, kind, 1, f"step {seq}")
        assert event.recorded_at.timestamp() * 1000 == clock.now_ms and event == registry.events(published_job)[-1]
        now = registry.get(published_job)
        assert (now.last_seq, now.last_event, now.detail, now.last_event_at) == (
            seq,
            kind,
            f"step {seq}",
            now.updated_at,
        )
    assert registry.complete(published_job, attempt=attempt).seq == 7


def test_more_jobs_than_the_cache_holds(registry):
    jobs = [job.job_id for job in registry.register_many([NewJob(agent="a", prompt="")] * 300)]
    for seq in (1, 2):
        for job_id in jobs:
            assert registry.publish(job_id, "progress").seq == seq
