"""Test the subscriber: its start, a restart, the end of a job, and a broker that loses its state."""

from __future__ import annotations

import json

import pytest

from jobdb import JobStatus, TimedOut
from jobdb.core.protocol.topics import topic_matches
from jobdb.model import Acceptance, Verdict
from jobdb.mqtt.reporting import RefusalReporter
from tests.support.mqtt.brokers import Mosquitto
from tests.support.mqtt.client import RawClient
from tests.support.mqtt.harness import BrokerHarness, collect
from tests.support.waiting import wait_until


def test_events_sent_while_no_subscriber_runs_wait_in_the_brokers_session(harness: BrokerHarness) -> None:
    job = harness.job()
    harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    accepted: list[int | None] = []
    with harness.follow(job.job_id):
        pass
    for _ in range(5):
        harness.registry.publish(job.job_id, "progress", attempt=1)
    harness.deliver()
    with harness.follow(job.job_id, on_accepted=lambda answer: accepted.append(answer.seq)) as follower:
        assert [event.seq for event in collect(follower, 5)] == [1, 2, 3, 4, 5]
    assert accepted == [1, 2, 3, 4, 5]


def test_accepted_unhandled_events_are_yielded_again_after_a_restart(harness: BrokerHarness) -> None:
    job = harness.job()
    harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with harness.follow() as follower:
        for _ in range(4):
            harness.registry.publish(job.job_id, "progress", attempt=1)
        harness.deliver()
        assert next(follower).seq == 1
        assert next(follower).seq == 2  # so 1 is handled, and 2 is not
        wait_until(lambda: harness.registry.subscriptions(job_id=job.job_id)[0].last_seq == 4)
    with harness.follow() as follower:
        assert [event.seq for event in collect(follower, 3)] == [2, 3, 4]
    assert harness.refused() == {}


def test_a_cancelled_job_ends_the_iteration_without_an_event(harness: BrokerHarness) -> None:
    job = harness.job()
    with harness.follow(job.job_id) as follower:
        harness.registry.cancel(job.job_id)
        assert list(follower) == []
    assert follower.outcome is not None and follower.outcome.status is JobStatus.CANCELLED


def test_a_job_that_ended_long_ago_is_not_waited_for(harness: BrokerHarness) -> None:
    job = harness.job()
    harness.run_job(job, events=3)
    with harness.follow(job.job_id, listening=False) as follower:
        assert [event.seq for event in follower] == [1, 2, 3]
    assert follower.outcome is not None and follower.outcome.status is JobStatus.COMPLETED


@pytest.mark.parametrize("one_job", [True, False])
def test_start_now_yields_nothing_old_and_does_not_report_retained_ends(harness: BrokerHarness, one_job: bool) -> None:
    old, living = harness.job(), harness.job()
    harness.run_job(old, events=4)
    harness.registry.claim(worker="w", job_id=living.job_id, lease_sec=None)
    for _ in range(3):
        harness.registry.publish(living.job_id, "progress", attempt=1)
    harness.deliver()
    with harness.follow(living.job_id if one_job else None, start="now") as follower:
        harness.registry.publish(living.job_id, "progress", detail="new", attempt=1)
        harness.deliver()
        assert [(event.job_id, event.seq) for event in collect(follower, 1)] == [(living.job_id, 4)]
    assert harness.refused() == {} and not any("refused" in line for line in harness.messages)


def test_a_late_subscriber_gets_a_retained_end_and_all_events_before_it(harness: BrokerHarness) -> None:
    job = harness.job()
    harness.run_job(job, events=4)
    harness.deliver()
    with harness.follow() as follower:
        assert [event.seq for event in collect(follower, 4)] == [1, 2, 3, 4]
    assert harness.refused() == {} and not any("did not arrive" in line for line in harness.messages)


def test_events_lost_by_a_killed_broker_are_backfilled_in_order(harness: BrokerHarness, broker: Mosquitto) -> None:
    job = harness.job()
    harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with harness.follow():
        pass
    for _ in range(3):
        harness.registry.publish(job.job_id, "progress", attempt=1)
    harness.deliver()
    broker.kill()
    broker.start()
    with harness.follow() as follower:
        harness.registry.publish(job.job_id, "progress", attempt=1)
        harness.deliver()
        assert [event.seq for event in collect(follower, 4)] == [1, 2, 3, 4]
    assert harness.refused() == {}


@pytest.mark.parametrize("what_comes", ["later events", "nothing"])
def test_a_reused_job_id_starts_over_for_a_running_subscriber(harness: BrokerHarness, what_comes: str) -> None:
    """The old job was pruned while the subscriber ran, and the broker does not deliver the new one's first events."""
    with harness.follow(grace_sec=2.0 if what_comes == "nothing" else 600.0) as follower:
        harness.run_job(harness.job(job_id="nightly"), events=4)
        harness.deliver()
        assert len(collect(follower, 4)) == 4
        engine = harness.registry.engine
        assert harness.registry.prune(older_than_sec=0, now_ms=engine.store.clock() + 1) == ["nightly"]
        harness.job(job_id="nightly")
        for _ in range(3):
            harness.registry.publish("nightly", "progress")
        lost = engine.outbox(after=0, limit=3 if what_comes == "nothing" else 2)
        engine.mark_delivered([delivery.number for delivery in lost])
        harness.deliver()
        assert [event.seq for event in collect(follower, 3)] == [1, 2, 3]
    assert not any("did not arrive" in line for line in harness.messages)


def test_without_a_relay_events_are_backfilled_after_the_grace_period(harness: BrokerHarness) -> None:
    job = harness.job()
    harness.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with harness.follow(grace_sec=0.2) as follower:
        harness.registry.publish(job.job_id, "progress", attempt=1)
        assert [event.seq for event in collect(follower, 1)] == [1]
        harness.deliver()  # and the broker's copy is a duplicate
        harness.registry.publish(job.job_id, "progress", attempt=1)
        harness.deliver()
        assert [event.seq for event in collect(follower, 1)] == [2]
    assert harness.refused() == {}


def test_a_subscriber_waits_for_a_broker_that_is_down_at_first(harness: BrokerHarness, broker: Mosquitto) -> None:
    job = harness.job()
    broker.stop()
    with harness.follow(job.job_id, listening=False) as follower, harness.relaying():
        harness.run_job(job, events=3)
        wait_until(lambda: any("Connection refused" in line for line in harness.messages))
        broker.start()
        assert [event.seq for event in follower] == [1, 2, 3]
        wait_until(lambda: harness.registry.engine.outbox_size()[0] == 0)


def test_time_limits_are_kept(harness: BrokerHarness) -> None:
    with harness.follow(timeout_sec=0.3) as follower, pytest.raises(TimedOut, match="in all"):
        next(follower)


def test_a_subscriber_of_all_jobs_is_told_of_a_cancellation(harness: BrokerHarness) -> None:
    job = harness.job()
    with harness.follow():
        harness.registry.cancel(job.job_id)
        wait_until(lambda: f"job {job.job_id} was cancelled" in harness.messages)


def test_an_old_scripts_event_is_accepted(harness: BrokerHarness, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The old wire format: ASCII escapes, no attempt and no key version, signed over sorted compact JSON."""
    import hashlib
    import hmac

    from jobdb.legacy import import_registry

    token = "an-old-token-of-the-old-registry"
    folder = tmp_path_factory.mktemp("old") / ".mam" / "jobs"
    folder.mkdir(parents=True)
    record = {
        "schema_version": 1, "job_id": "0ld00001", "status": "running", "created_at": "2026-06-19T09:00:00Z",
        "updated_at": "2026-06-19T09:00:00Z", "prompt": "p", "agent": "codex", "agent_session": None,
        "broker": {"host": "127.0.0.1", "port": harness.settings.port}, "topic_prefix": "mam/0ld00001",
        "timeout_sec": 3600, "idle_timeout_sec": 120, "expected_artifacts": [], "last_seq": 0, "auth_token": token,
    }  # fmt: skip
    (folder / "0ld00001.json").write_text(json.dumps(record))
    import_registry(harness.registry, folder)
    payload = {
        "schema_version": 1, "seq": 1, "job_id": "0ld00001", "event": "completed",
        "timestamp": "2026-06-19T09:32:00Z", "detail": "größer", "data": {"pct": 100.0},
    }  # fmt: skip
    message = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    payload["data"]["hmac_sig"] = hmac.new(token.encode(), message, hashlib.sha256).hexdigest()  # type: ignore[index]
    with harness.follow() as follower, RawClient(harness.settings.port) as agent:
        agent.publish("mam/0ld00001/events", json.dumps(payload), retain=True)
        [event] = collect(follower, 1)
    assert event.detail == "größer"
    assert harness.registry.get("0ld00001").status is JobStatus.COMPLETED
    assert harness.refused() == {}


@pytest.mark.parametrize(
    ("name", "topic", "covers"),
    [
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/d", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/b", "a/b", True),
        ("a/b/c", "a/b", False),
    ],
)
def test_topic_filters(name: str, topic: str, covers: bool) -> None:
    assert topic_matches(name, topic) is covers


def test_suppressed_refusals_are_counted_at_the_end_of_the_period() -> None:
    messages: list[str] = []
    now = [0.0]
    refusals = RefusalReporter(messages.append, clock=lambda: now[0], most=2, period_sec=10)
    for _ in range(5):
        refusals.report(Acceptance(Verdict.UNSIGNED, "j", 1, reason="why"))
    now[0] = 11.0
    refusals.report(Acceptance(Verdict.UNSIGNED, "j", 2, reason="why"))
    assert [line.split(":")[1].split()[0] for line in messages] == ["unsigned", "unsigned", "3", "unsigned"]
