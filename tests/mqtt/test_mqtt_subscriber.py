"""The subscriber: what it does at its beginning, after a restart, at a job's end, and when the broker forgets."""

from __future__ import annotations

import json

import pytest
from brokerkit.registries import Bench, RawClient, collect, until
from brokerkit.servers import Mosquitto

from jobdb import JobStatus, TimedOut
from jobdb.model import Acceptance, Verdict
from jobdb.mqtt.intake import topic_matches
from jobdb.mqtt.refusals import Refusals


def test_events_that_come_while_nobody_listens_wait_in_the_brokers_session(bench: Bench) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    accepted: list[int | None] = []
    with bench.follow(job.job_id):
        pass
    for _ in range(5):
        bench.registry.publish(job.job_id, "progress", attempt=1)
    bench.deliver()
    with bench.follow(job.job_id, on_accepted=lambda answer: accepted.append(answer.seq)) as follower:
        assert [event.seq for event in collect(follower, 5)] == [1, 2, 3, 4, 5]
    assert accepted == [1, 2, 3, 4, 5]


def test_what_was_accepted_and_not_handled_comes_again_after_a_restart(bench: Bench) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with bench.follow() as follower:
        for _ in range(4):
            bench.registry.publish(job.job_id, "progress", attempt=1)
        bench.deliver()
        assert next(follower).seq == 1
        assert next(follower).seq == 2  # so 1 is handled, and 2 is not
        until(lambda: bench.registry.subscriptions(job_id=job.job_id)[0].last_seq == 4)
    with bench.follow() as follower:
        assert [event.seq for event in collect(follower, 3)] == [2, 3, 4]
    assert bench.refused() == {}


def test_a_cancelled_job_ends_the_iteration_although_no_event_says_so(bench: Bench) -> None:
    job = bench.job()
    with bench.follow(job.job_id) as follower:
        bench.registry.cancel(job.job_id)
        assert list(follower) == []
    assert follower.outcome is not None and follower.outcome.status is JobStatus.CANCELLED


def test_a_job_that_ended_long_ago_is_not_waited_for(bench: Bench) -> None:
    job = bench.job()
    bench.run_job(job, events=3)
    with bench.follow(job.job_id, listening=False) as follower:
        assert [event.seq for event in follower] == [1, 2, 3]
    assert follower.outcome is not None and follower.outcome.status is JobStatus.COMPLETED


@pytest.mark.parametrize("one_job", [True, False])
def test_start_now_takes_nothing_old_and_raises_no_alarm_about_retained_ends(bench: Bench, one_job: bool) -> None:
    old, living = bench.job(), bench.job()
    bench.run_job(old, events=4)
    bench.registry.claim(worker="w", job_id=living.job_id, lease_sec=None)
    for _ in range(3):
        bench.registry.publish(living.job_id, "progress", attempt=1)
    bench.deliver()
    with bench.follow(living.job_id if one_job else None, start="now") as follower:
        bench.registry.publish(living.job_id, "progress", detail="new", attempt=1)
        bench.deliver()
        assert [(event.job_id, event.seq) for event in collect(follower, 1)] == [(living.job_id, 4)]
    assert bench.refused() == {} and not any("refused" in line for line in bench.said)


def test_a_late_subscriber_gets_a_retained_end_with_all_that_was_before_it(bench: Bench) -> None:
    job = bench.job()
    bench.run_job(job, events=4)
    bench.deliver()
    with bench.follow() as follower:
        assert [event.seq for event in collect(follower, 4)] == [1, 2, 3, 4]
    assert bench.refused() == {} and not any("did not arrive" in line for line in bench.said)


def test_what_a_killed_broker_forgot_comes_from_the_database_in_order(bench: Bench, broker: Mosquitto) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with bench.follow():
        pass
    for _ in range(3):
        bench.registry.publish(job.job_id, "progress", attempt=1)
    bench.deliver()
    broker.kill()
    broker.start()
    with bench.follow() as follower:
        bench.registry.publish(job.job_id, "progress", attempt=1)
        bench.deliver()
        assert [event.seq for event in collect(follower, 4)] == [1, 2, 3, 4]
    assert bench.refused() == {}


@pytest.mark.parametrize("what_comes", ["later events", "nothing"])
def test_a_job_id_that_is_used_again_begins_anew_for_a_subscriber_that_runs(bench: Bench, what_comes: str) -> None:
    """The old job was pruned while the subscriber ran, and the broker does not bring the new one's first events."""
    with bench.follow(grace_sec=2.0 if what_comes == "nothing" else 600.0) as follower:
        bench.run_job(bench.job(job_id="nightly"), events=4)
        bench.deliver()
        assert len(collect(follower, 4)) == 4
        engine = bench.registry.engine
        assert bench.registry.prune(older_than_sec=0, now_ms=engine.store.clock() + 1) == ["nightly"]
        bench.job(job_id="nightly")
        for _ in range(3):
            bench.registry.publish("nightly", "progress")
        lost = engine.outbox(after=0, limit=3 if what_comes == "nothing" else 2)
        engine.mark_delivered([delivery.number for delivery in lost])
        bench.deliver()
        assert [event.seq for event in collect(follower, 3)] == [1, 2, 3]
    assert not any("did not arrive" in line for line in bench.said)


def test_without_a_relay_events_come_from_the_database_after_the_grace_time(bench: Bench) -> None:
    job = bench.job()
    bench.registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    with bench.follow(grace_sec=0.2) as follower:
        bench.registry.publish(job.job_id, "progress", attempt=1)
        assert [event.seq for event in collect(follower, 1)] == [1]
        bench.deliver()  # and the broker's copy is a duplicate
        bench.registry.publish(job.job_id, "progress", attempt=1)
        bench.deliver()
        assert [event.seq for event in collect(follower, 1)] == [2]
    assert bench.refused() == {}


def test_a_broker_that_is_down_at_the_beginning_is_waited_for(bench: Bench, broker: Mosquitto) -> None:
    job = bench.job()
    broker.stop()
    with bench.follow(job.job_id, listening=False) as follower, bench.relaying():
        bench.run_job(job, events=3)
        until(lambda: any("Connection refused" in line for line in bench.said))
        broker.start()
        assert [event.seq for event in follower] == [1, 2, 3]
        until(lambda: bench.registry.engine.outbox_size()[0] == 0)


def test_limits_of_time_are_kept(bench: Bench) -> None:
    with bench.follow(timeout_sec=0.3) as follower, pytest.raises(TimedOut, match="in all"):
        next(follower)


def test_a_cancellation_is_said_to_a_subscriber_of_all_jobs(bench: Bench) -> None:
    job = bench.job()
    with bench.follow():
        bench.registry.cancel(job.job_id)
        until(lambda: f"job {job.job_id} was cancelled" in bench.said)


def test_an_old_scripts_event_is_accepted(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
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
        "broker": {"host": "127.0.0.1", "port": bench.settings.port}, "topic_prefix": "mam/0ld00001",
        "timeout_sec": 3600, "idle_timeout_sec": 120, "expected_artifacts": [], "last_seq": 0, "auth_token": token,
    }  # fmt: skip
    (folder / "0ld00001.json").write_text(json.dumps(record))
    import_registry(bench.registry, folder)
    payload = {
        "schema_version": 1, "seq": 1, "job_id": "0ld00001", "event": "completed",
        "timestamp": "2026-06-19T09:32:00Z", "detail": "größer", "data": {"pct": 100.0},
    }  # fmt: skip
    message = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    payload["data"]["hmac_sig"] = hmac.new(token.encode(), message, hashlib.sha256).hexdigest()  # type: ignore[index]
    with bench.follow() as follower, RawClient(bench.settings.port) as agent:
        agent.say("mam/0ld00001/events", json.dumps(payload), retain=True)
        [event] = collect(follower, 1)
    assert event.detail == "größer"
    assert bench.registry.get("0ld00001").status is JobStatus.COMPLETED
    assert bench.refused() == {}


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


def test_unsaid_refusals_are_counted_when_the_period_is_over() -> None:
    said: list[str] = []
    now = [0.0]
    refusals = Refusals(said.append, clock=lambda: now[0], most=2, period_sec=10)
    for _ in range(5):
        refusals.say(Acceptance(Verdict.UNSIGNED, "j", 1, reason="why"))
    now[0] = 11.0
    refusals.say(Acceptance(Verdict.UNSIGNED, "j", 2, reason="why"))
    assert [line.split(":")[1].split()[0] for line in said] == ["unsigned", "unsigned", "3", "unsigned"]
