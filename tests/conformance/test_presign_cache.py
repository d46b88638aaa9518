"""Test a process that publishes a job's events in a row while others change the job, on every engine.

An engine may sign an event before its transaction begins, from what its process last saw of the job. A change by
another process since then must have the same effect as without this.
"""

import pytest

from jobdb import (
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
def other(database):
    """Another process's registry on the same database."""
    with database.open() as second:
        yield second


@pytest.fixture
def publishing(registry, job):
    """A job whose last event came from ``registry``."""
    registry.claim(worker="w", job_id=job.job_id)
    registry.publish(job.job_id, "progress", attempt=1)
    registry.publish(job.job_id, "progress", attempt=1)
    return job.job_id


def test_seqs_stay_gapless_for_alternating_publishers(registry, other, publishing):
    for number in range(3, 13):
        who = (registry, other)[number // 3 % 2]
        assert who.publish(publishing, "progress", detail=str(number)).seq == number
    events = registry.events(publishing)
    token = registry.tokens.show(publishing)
    assert [event.seq for event in events] == list(range(1, 13))
    assert all(verify(parse(event.payload), token) for event in events)
    assert registry.get(publishing).detail == "12"


def test_a_batch_between_two_single_events(registry, publishing):
    registry.publish_many([NewEvent(job_id=publishing, event=EventKind.PROGRESS)] * 3)
    assert registry.publish(publishing, "progress").seq == 6
    assert registry.publish(publishing, "progress").seq == 7


def test_a_token_rotated_elsewhere_signs_the_next_event(registry, other, publishing):
    other.tokens.rotate(publishing)
    wire = parse(registry.publish(publishing, "progress").payload)
    assert wire.kid == 2 and verify(wire, other.tokens.show(publishing))


def test_a_token_revoked_elsewhere_signs_nothing_more(registry, other, publishing):
    other.tokens.revoke(publishing, 1)
    with pytest.raises(KeyProblem, match="rotate"):
        registry.publish(publishing, "progress")
    assert registry.get(publishing).last_seq == 2 and len(registry.events(publishing)) == 2


@pytest.mark.parametrize("attempt", [None, 1])
def test_a_job_that_ended_elsewhere_publishes_no_more(registry, other, publishing, attempt):
    other.publish(publishing, "completed")
    with pytest.raises(IllegalTransition, match="completed"):
        registry.publish(publishing, "progress", attempt=attempt)
    assert registry.get(publishing).last_seq == 3


def test_a_job_cancelled_elsewhere_publishes_no_more(registry, other, publishing):
    other.cancel(publishing)
    with pytest.raises(IllegalTransition, match="cancelled"):
        registry.publish(publishing, "progress")


def test_a_claim_taken_over_elsewhere_fences_the_old_one(registry, other, publishing):
    other.release(publishing, attempt=1)
    assert other.claim(worker="successor", job_id=publishing).attempt == 2
    with pytest.raises(StaleAttempt, match="attempt 2"):
        registry.publish(publishing, "progress", attempt=1)
    event = registry.publish(publishing, "progress")
    assert (event.seq, event.attempt) == (3, 2)


def test_a_job_released_elsewhere_continues_under_a_new_attempt(registry, other, publishing):
    other.release(publishing, attempt=1)
    with pytest.raises(StaleAttempt):
        registry.publish(publishing, "progress", attempt=1)
    assert registry.publish(publishing, "progress").attempt == 2
    assert registry.get(publishing).status is JobStatus.RUNNING


def test_a_job_pruned_elsewhere_is_unknown_even_if_its_id_is_reused(registry, other, publishing, clock):
    other.publish(publishing, "completed")
    clock.advance(10)
    assert other.prune(older_than_sec=1) == [publishing]
    with pytest.raises(UnknownJob):
        registry.publish(publishing, "progress")
    other.register(agent="a", prompt="", job_id=publishing)
    other.claim(worker="w", job_id=publishing)
    assert registry.publish(publishing, "progress").seq == 1


def test_every_event_is_queued_for_delivery(registry):
    job_id = registry.register(agent="a", prompt="", broker=Broker("localhost")).job_id
    for _ in range(4):
        registry.publish(job_id, "progress")
    assert [delivery.seq for delivery in registry.engine.outbox(after=0, limit=10)] == [1, 2, 3, 4]


def test_jobs_without_a_token_stay_unsigned_until_they_get_one(registry, other):
    job_id = registry.register(agent="a", prompt="", auth="never").job_id
    for _ in range(3):
        assert "hmac" not in registry.publish(job_id, "progress").payload
    other.tokens.rotate(job_id)
    wire = parse(registry.publish(job_id, "progress").payload)
    assert wire.seq == 4 and verify(wire, other.tokens.show(job_id))


def test_each_event_and_job_record_is_complete(registry, clock, publishing):
    for seq, kind in enumerate(("progress", "permission_required", "started", "progress"), start=3):
        clock.advance(1)
        event = registry.publish(publishing, kind, detail=f"step {seq}", data={"pct": seq})
        assert (event.seq, event.event, event.attempt, event.detail) == (seq, kind, 1, f"step {seq}")
        assert event.recorded_at.timestamp() * 1000 == clock.now_ms and event == registry.events(publishing)[-1]
        now = registry.get(publishing)
        assert (now.last_seq, now.last_event, now.detail, now.last_event_at) == (
            seq,
            kind,
            f"step {seq}",
            now.updated_at,
        )
    assert registry.complete(publishing).seq == 7


def test_more_jobs_than_the_cache_holds(registry):
    jobs = [job.job_id for job in registry.register_many([NewJob(agent="a", prompt="")] * 300)]
    for seq in (1, 2):
        for job_id in jobs:
            assert registry.publish(job_id, "progress").seq == seq
