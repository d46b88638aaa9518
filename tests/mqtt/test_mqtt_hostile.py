"""Test hostile messages from a third client: each is refused with the right verdict and changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from jobdb import EventKind, JobStatus, Registry
from jobdb.core.protocol import build
from tests.support.mqtt.client import RawClient
from tests.support.mqtt.harness import BrokerHarness, collect
from tests.support.waiting import TIMEOUT_SEC, wait_until


def _signed(
    harness: BrokerHarness,
    job_id: str,
    seq: int,
    *,
    event: str = "progress",
    token_of: str | None = None,
    **more: object,
) -> str:
    kid, token = harness.registry.engine.token(token_of or job_id, kid=None)
    options: dict[str, object] = {"detail": "", "data": {}, "attempt": 1} | more
    wire = build(
        job_id=job_id,
        seq=seq,
        event=EventKind(event),
        timestamp="2026-06-19T09:32:00Z",
        kid=kid,
        token=token,
        **options,  # type: ignore[arg-type]
    )
    return wire.text


def _state(harness: BrokerHarness, job_id: str) -> tuple[object, ...]:
    job = harness.registry.get(job_id)
    numbers = [(n.subscriber, n.last_seq, n.handled_seq) for n in harness.registry.subscriptions(job_id=job_id)]
    return job.status, job.last_seq, job.detail, numbers, [e.payload for e in harness.registry.events(job_id)]


@pytest.fixture
def watched(harness: BrokerHarness) -> Callable[[str, str, str], dict[str, int]]:
    """Prepare two jobs with three handled events each; return a function that publishes and returns the refusals."""
    harness.ours = harness.job(job_id="ours")  # type: ignore[attr-defined]
    for job_id in ("ours", "theirs"):
        if job_id == "theirs":
            harness.job(job_id="theirs")
        harness.registry.claim(worker="w", job_id=job_id, lease_sec=None)
        for step in range(3):
            harness.registry.publish(job_id, "progress", detail=f"step {step}", attempt=1)

    def attack(topic: str, payload: str, verdict: str) -> dict[str, int]:
        with harness.follow() as follower, RawClient(harness.settings.port) as client:
            harness.deliver()
            collect(follower, 6)
            before = _state(harness, "ours"), _state(harness, "theirs")
            client.publish(topic, payload)
            if verdict != "duplicate":
                wait_until(lambda: harness.refused() == {verdict: 1})
            # The next message on the same path is accepted, so this one was processed and blocked nothing.
            last = harness.registry.publish("theirs", "progress", detail="after", attempt=1)
            harness.deliver()
            assert [event.seq for event in collect(follower, 1)] == [last.seq]
        assert _state(harness, "ours") == before[0]
        return harness.refused()

    return attack


def test_a_replayed_message_is_a_duplicate_and_not_reported(
    harness: BrokerHarness, watched: Callable[..., dict[str, int]]
) -> None:
    payload = harness.registry.events("ours")[1].payload
    assert watched("jobdb/jobs/ours/events", payload, "duplicate") == {}


def test_an_old_message_sent_again_to_a_later_subscriber_is_replayed(harness: BrokerHarness) -> None:
    job = harness.job(job_id="ours")
    harness.registry.claim(worker="w", job_id="ours", lease_sec=None)
    recorded = [harness.registry.publish("ours", "progress", attempt=1).payload for _ in range(3)]
    harness.deliver()
    with harness.follow("ours", start="now", subscriber="late"), RawClient(harness.settings.port) as client:
        client.publish(job.topic, recorded[1])
        wait_until(lambda: harness.refused() == {"replayed": 1})
    [refusal] = harness.registry.refusals()
    assert (refusal.job_id, refusal.seq, refusal.subscriber) == ("ours", 2, "late")
    assert any("replayed" in line and "job ours seq 2" in line for line in harness.messages)


def test_an_altered_message_is_a_bad_signature(harness: BrokerHarness, watched: Callable[..., dict[str, int]]) -> None:
    payload = json.loads(harness.registry.events("ours")[-1].payload)
    payload["detail"] = "the attacker's words"
    payload["seq"] = 4
    assert watched("jobdb/jobs/ours/events", json.dumps(payload), "bad_signature") == {"bad_signature": 1}
    assert not any("the attacker's words" in line for line in harness.messages)
    assert not any(payload["data"]["hmac_sig"] in line for line in harness.messages)


def test_another_jobs_token_is_a_bad_signature(harness: BrokerHarness, watched: Callable[..., dict[str, int]]) -> None:
    forged = _signed(harness, "ours", 4, event="completed", token_of="theirs")
    assert watched("jobdb/jobs/ours/events", forged, "bad_signature") == {"bad_signature": 1}


def test_another_jobs_topic_is_wrong_topic(harness: BrokerHarness, watched: Callable[..., dict[str, int]]) -> None:
    genuine = _signed(harness, "ours", 4, event="completed")
    assert watched("jobdb/jobs/theirs/events", genuine, "wrong_topic") == {"wrong_topic": 1}


def test_a_message_without_a_signature_is_unsigned(
    harness: BrokerHarness, watched: Callable[..., dict[str, int]]
) -> None:
    payload = json.loads(_signed(harness, "ours", 4))
    del payload["data"]["hmac_sig"]
    assert watched("jobdb/jobs/ours/events", json.dumps(payload), "unsigned") == {"unsigned": 1}


def test_garbage_is_malformed(watched: Callable[..., dict[str, int]]) -> None:
    assert watched("jobdb/jobs/ours/events", "{", "malformed") == {"malformed": 1}


def test_an_unknown_job_is_reported_over_mqtt(watched: Callable[..., dict[str, int]], harness: BrokerHarness) -> None:
    payload = json.loads(_signed(harness, "ours", 4))
    payload["job_id"] = "nobody"
    assert watched("jobdb/jobs/nobody/events", json.dumps(payload), "unknown_job") == {"unknown_job": 1}


def test_a_retained_stale_terminal_is_refused_and_changes_nothing(harness: BrokerHarness) -> None:
    job = harness.job(job_id="again")
    harness.registry.claim(worker="w1", job_id="again", lease_sec=None)
    harness.registry.publish("again", "progress", attempt=1)
    stale = _signed(harness, "again", 2, event="completed", attempt=1)
    harness.registry.release("again", attempt=1)
    harness.registry.claim(worker="w2", job_id="again", lease_sec=None)
    harness.deliver()
    with RawClient(harness.settings.port) as client:
        client.publish(job.topic, stale, retain=True)
    with harness.follow("again") as follower:
        wait_until(lambda: harness.refused() == {"stale_attempt": 1})
        assert harness.registry.get("again").status is JobStatus.RUNNING
        harness.registry.complete("again", attempt=2)
        assert [(event.seq, event.event.value) for event in follower] == [(1, "progress"), (2, "completed")]
    assert harness.refused() == {"stale_attempt": 1}


def test_a_forged_event_with_a_high_seq_or_of_an_unseen_job_moves_no_position(harness: BrokerHarness) -> None:
    """It must neither trigger a backfill of events that have not arrived, nor create a subscription."""
    job = harness.job(job_id="ours")
    harness.registry.claim(worker="w", job_id="ours", lease_sec=None)
    with harness.follow(), RawClient(harness.settings.port) as client:
        harness.registry.publish("ours", "progress", attempt=1)
        forged = json.loads(_signed(harness, "ours", 400))
        forged["detail"] = "altered"
        client.publish(job.topic, json.dumps(forged))
        client.publish("jobdb/jobs/theirs/events", _signed(harness, "ours", 400))
        wait_until(lambda: harness.refused() == {"bad_signature": 1, "wrong_topic": 1})
        assert harness.registry.subscriptions() == []


def test_a_forged_event_does_not_replace_a_lost_one(harness: BrokerHarness) -> None:
    """It has the seq of the lost event and arrives in one batch with the next genuine one."""
    job = harness.job(job_id="ours")
    harness.registry.claim(worker="w", job_id="ours", lease_sec=None)
    engine = harness.registry.engine
    with harness.follow() as follower, RawClient(harness.settings.port) as client:
        harness.registry.publish("ours", "progress", attempt=1)
        harness.deliver()
        collect(follower, 1)
        lost, after = (harness.registry.publish("ours", "progress", attempt=1) for _ in range(2))
        engine.mark_delivered([delivery.number for delivery in engine.outbox(after=0, limit=10)])
        forged = json.loads(lost.payload)
        forged["detail"] = "altered"
        hold, held = threading.Event(), threading.Event()

        def hold_write_lock() -> None:
            with Registry.open(harness.path, vault=harness.vault) as other, other.engine.store.write():
                held.set()
                hold.wait(TIMEOUT_SEC)

        thread = threading.Thread(target=hold_write_lock)
        thread.start()
        assert held.wait(TIMEOUT_SEC)
        client.publish(job.topic, "{")  # its acceptance waits for the lock, and the next two wait for it
        wait_until(lambda: follower._consumer._inbox)
        client.publish(job.topic, json.dumps(forged))
        client.publish(job.topic, after.payload)
        wait_until(lambda: len(follower._consumer._inbox) == 3)
        hold.set()
        thread.join(TIMEOUT_SEC)
        assert [event.seq for event in collect(follower, 2)] == [2, 3]
    assert not any("did not arrive" in line for line in harness.messages)
    assert harness.refused() == {"malformed": 1, "bad_signature": 1}


def test_a_flood_of_refusals_causes_a_bounded_number_of_messages(harness: BrokerHarness) -> None:
    harness.job(job_id="ours")
    with harness.follow(), RawClient(harness.settings.port) as client:
        for number in range(100):
            client.publish("jobdb/jobs/ours/events", f"rubbish {number}")
        wait_until(lambda: harness.refused() == {"malformed": 100})
    assert sum("refused" in line for line in harness.messages) <= 21


def test_a_second_subscriber_of_the_same_name_is_reported_and_harmless(harness: BrokerHarness) -> None:
    job = harness.job()
    with harness.follow(job.job_id), harness.follow(job.job_id) as second, harness.relaying():
        wait_until(lambda: any("does another process subscribe as 'watcher'?" in line for line in harness.messages))
        harness.run_job(job, events=4)
        assert [event.seq for event in second] == [1, 2, 3, 4]
    assert harness.refused() == {}
