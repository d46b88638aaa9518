"""Test publish, events and the outbox, on every engine."""

import json

import pytest

from jobdb import (
    Broker,
    EventKind,
    IllegalTransition,
    InvalidInput,
    JobStatus,
    KeyProblem,
    NewEvent,
    StaleAttempt,
    UnknownJob,
)
from jobdb.core.lifecycle import next_status
from jobdb.core.protocol import parse, verify
from tests.support.wire_events import signed


def test_events_are_numbered_and_signed_and_update_the_job(registry, clock, job):
    job_id = job.job_id
    claim = registry.claim(worker="w")
    token = registry.tokens.show(job_id)
    for seq, kind in enumerate(("started", "progress", "permission_required", "completed"), start=1):
        clock.advance(1)
        event = registry.publish(job_id, kind, detail=f"step {seq}", data={"pct": seq}, attempt=claim.attempt)
        assert (event.seq, event.event, event.attempt, event.detail) == (seq, kind, 1, f"step {seq}")
        wire = parse(event.payload)
        assert verify(wire, token) and wire.data["hmac_kid"] == 1 and wire.data["attempt"] == 1
        assert event.recorded_at.timestamp() * 1000 == clock.now_ms
        now = registry.get(job_id)
        assert (now.last_seq, now.last_event, now.detail) == (seq, kind, f"step {seq}")
        assert now.last_event_at == now.updated_at == event.recorded_at
    assert now.status is JobStatus.COMPLETED and now.finished_at == event.recorded_at
    assert now.lease_expires_at is None
    stored = registry.events(job_id)
    assert [item.seq for item in stored] == [1, 2, 3, 4] and stored[-1] == event


@pytest.mark.parametrize("lease_sec", [None, 60])
@pytest.mark.parametrize("kind", list(EventKind))
def test_every_transition_follows_the_table(registry, kind, lease_sec):
    def fresh(status):
        job_id = registry.register(agent="a", prompt="").job_id
        if status is JobStatus.RUNNING:
            registry.claim(worker="w", job_id=job_id, lease_sec=lease_sec)
        elif status is JobStatus.CANCELLED:
            registry.cancel(job_id)
        elif status.terminal:
            registry.publish(job_id, status.value)
        return job_id

    for status in JobStatus:
        job_id = fresh(status)
        before = registry.get(job_id)
        target = next_status(status, kind)
        if target is None:
            with pytest.raises(IllegalTransition, match=str(status)):
                registry.publish(job_id, kind)
            assert registry.get(job_id) == before
        else:
            registry.publish(job_id, kind, attempt=1 if lease_sec and before.attempt else None)
            assert registry.get(job_id).status is target


def test_publishing_to_a_released_job_takes_a_new_attempt(registry, job):
    registry.claim(worker="w")
    registry.release(job.job_id, attempt=1)
    event = registry.publish(job.job_id, "progress")
    assert event.attempt == 2 and registry.get(job.job_id).attempt == 2
    with pytest.raises(StaleAttempt):
        registry.publish(job.job_id, "progress", attempt=1)


def test_a_batch_is_published_whole_or_not_at_all(registry):
    a, b = (registry.register(agent="x", prompt="").job_id for _ in range(2))
    good = [NewEvent(job_id=name, event=EventKind.PROGRESS) for name in (b, a, b, a, b)]
    events = registry.publish_many(good)
    assert [(event.job_id, event.seq) for event in events] == [(b, 1), (a, 1), (b, 2), (a, 2), (b, 3)]
    with pytest.raises(UnknownJob):
        registry.publish_many([*good, NewEvent(job_id="nobody", event=EventKind.PROGRESS)])
    ended = [NewEvent(job_id=a, event=EventKind.COMPLETED), NewEvent(job_id=a, event=EventKind.PROGRESS)]
    with pytest.raises(IllegalTransition):
        registry.publish_many(ended)
    assert [registry.get(name).last_seq for name in (a, b)] == [2, 3]
    assert registry.get(a).status is JobStatus.RUNNING


def test_jobs_without_a_token_publish_unsigned(registry):
    job = registry.register(agent="a", prompt="", auth="never")
    event = registry.publish(job.job_id, "progress")
    assert "hmac" not in event.payload and registry.get(job.job_id).auth == "never"
    with pytest.raises(InvalidInput, match="no token"):
        registry.tokens.show(job.job_id)


def test_a_revoked_token_stops_publishing_until_rotated(registry, job):
    registry.tokens.revoke(job.job_id, 1)
    with pytest.raises(KeyProblem, match="rotate"):
        registry.publish(job.job_id, "progress")
    assert registry.get(job.job_id).last_seq == 0
    registry.tokens.rotate(job.job_id)
    assert parse(registry.publish(job.job_id, "progress").payload).kid == 2


def test_pages_of_events(registry, job):
    registry.publish_many([NewEvent(job_id=job.job_id, event=EventKind.PROGRESS)] * 7)
    pages = [[event.seq for event in registry.events(job.job_id, after=after, limit=3)] for after in (0, 3, 6, 7)]
    assert pages == [[1, 2, 3], [4, 5, 6], [7], []]


HOSTILE = ["", "\x01", "\u2028 \u2029", "\U0010ffff", "'; DROP TABLE jobs; --", "%s %(x)s :seq ?", "\\", "\x7f\x1b[2J"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_stored_unchanged(registry, job, text):
    event = registry.publish(job.job_id, "progress", detail=text, data={"k": text, "n": [text, {"deep": text}]})
    (stored,) = registry.events(job.job_id)
    assert stored == event and stored.detail == text and stored.data["n"][1] == {"deep": text}
    assert json.loads(stored.payload)["detail"] == text
    assert registry.get(job.job_id).detail == (text or None)
    assert registry.accept(stored.payload, subscriber="s").verdict == "accepted"


def test_a_nul_character_inside_an_event_is_kept(registry, job):
    data = {"k\x00": "a\x00b"}
    registry.publish(job.job_id, "progress", data=data)
    line = signed(job.job_id, 2, token=registry.tokens.show(job.job_id), data=data)
    assert registry.accept(line, subscriber="s").verdict == "accepted"
    first, second = registry.events(job.job_id)
    assert first.data["k\x00"] == second.data["k\x00"] == "a\x00b"


def test_values_without_json_form_are_refused_and_nothing_is_written(registry, job):
    for data in (
        {"x": float("nan")},
        {"x": float("inf")},
        {"x": 2**60},
        {"x": object()},
        {"x": "\ud800"},
        {"\udfff": 1},
    ):
        with pytest.raises(InvalidInput):
            registry.publish(job.job_id, "progress", data=data)
    for detail in ("\ud800", "d" * 65_537, 7, None):
        with pytest.raises(InvalidInput):
            registry.publish(job.job_id, "progress", detail=detail)
    for event in ("done", "", None, 3):
        with pytest.raises(InvalidInput):
            registry.publish(job.job_id, event)
    assert registry.get(job.job_id).last_seq == 0 and registry.events(job.job_id) == []


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"])
def test_text_that_no_column_can_store_is_refused_by_every_verb(registry, job, text):
    calls = [
        lambda: registry.register(agent=text, prompt=""),
        lambda: registry.register(agent="a", prompt=text),
        lambda: registry.register(agent="a", prompt="", agent_session=text),
        lambda: registry.register(agent="a", prompt="", topic_prefix=text),
        lambda: registry.register(agent="a", prompt="", idempotency_key=text),
        lambda: registry.register(agent="a", prompt="", expected_artifacts=[text]),
        lambda: registry.register(agent="a", prompt="", broker=Broker(text)),
        lambda: registry.register(agent="a", prompt="", broker=Broker("h", username=text)),
        lambda: registry.register(agent="a", prompt="", broker=Broker("h"), broker_password=text),
        lambda: registry.jobs(agent=text),
        lambda: registry.jobs(agent_session=text),
        lambda: registry.claim(worker=text),
        lambda: registry.claim(worker="w", agent=text),
        lambda: registry.claim(worker="w", agent_session=text),
        lambda: registry.cancel(job.job_id, reason=text),
        lambda: registry.accept("{}", subscriber=text),
        lambda: registry.subscriptions(subscriber=text),
        lambda: registry.get(text),
    ]
    for number, call in enumerate(calls):
        try:
            call()
        except InvalidInput:
            continue
        pytest.fail(f"call {number} was not refused")
    assert [found.job_id for found in registry.jobs()] == [job.job_id]


def test_extra_fields_with_lone_surrogates_are_refused(registry):
    with pytest.raises(InvalidInput):
        registry.register(agent="a", prompt="", extra={"x": "\ud800"})


# -- the outbox


@pytest.fixture
def jobs_with_broker(registry):
    return [registry.register(agent="a", prompt="", broker=Broker("localhost")).job_id for _ in range(2)]


def test_events_of_jobs_with_a_broker_are_queued_in_order(registry, clock, jobs_with_broker, job):
    a, b = jobs_with_broker
    began = clock.now_ms
    for job_id in (a, b, job.job_id, a):
        registry.publish(job_id, "progress", detail=job_id)
        clock.advance(1)
    engine = registry.engine
    waiting = engine.outbox(after=0, limit=10)
    assert [(delivery.job_id, delivery.seq) for delivery in waiting] == [(a, 1), (b, 1), (a, 2)]
    assert waiting[0].topic == f"jobdb/jobs/{a}/events"
    assert waiting[0].payload == registry.events(a)[0].payload
    assert [d.seq for d in engine.outbox(after=waiting[0].number, limit=1)] == [1]
    assert [d.job_id for d in engine.outbox(after=0, limit=10, job_id=b)] == [b]
    assert engine.outbox_size() == (3, began)
    engine.mark_delivered([waiting[0].number, waiting[2].number])
    engine.mark_delivered([waiting[0].number])
    assert [d.number for d in engine.outbox(after=0, limit=10)] == [waiting[1].number]
    engine.mark_delivered([waiting[1].number])
    assert engine.outbox_size() == (0, None)


def test_a_refused_publish_leaves_no_delivery(registry, jobs_with_broker):
    with pytest.raises(UnknownJob):
        registry.publish_many(
            [NewEvent(job_id=name, event=EventKind.PROGRESS) for name in (jobs_with_broker[0], "nobody")]
        )
    assert registry.engine.outbox(after=0, limit=10) == []
