"""What a third client at the broker tries: each message is refused with the right verdict and changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
from brokerkit.registries import LIMIT_SEC, Bench, RawClient, collect, until

from jobdb import EventKind, JobStatus, Registry
from jobdb.core.protocol import build


def _signed(
    bench: Bench, job_id: str, seq: int, *, event: str = "progress", token_of: str | None = None, **more: object
) -> str:
    kid, token = bench.registry.engine.token(token_of or job_id, kid=None)
    how: dict[str, object] = {"detail": "", "data": {}, "attempt": 1} | more
    wire = build(
        job_id=job_id,
        seq=seq,
        event=EventKind(event),
        timestamp="2026-06-19T09:32:00Z",
        kid=kid,
        token=token,
        **how,  # type: ignore[arg-type]
    )
    return wire.text


def _state(bench: Bench, job_id: str) -> tuple[object, ...]:
    job = bench.registry.get(job_id)
    numbers = [(n.subscriber, n.last_seq, n.handled_seq) for n in bench.registry.subscriptions(job_id=job_id)]
    return job.status, job.last_seq, job.detail, numbers, [e.payload for e in bench.registry.events(job_id)]


@pytest.fixture
def watched(bench: Bench) -> Callable[[str, str, str], dict[str, int]]:
    """Two jobs with three events each, all handled; says what publishing a message then leads to."""
    bench.ours = bench.job(job_id="ours")  # type: ignore[attr-defined]
    for job_id in ("ours", "theirs"):
        if job_id == "theirs":
            bench.job(job_id="theirs")
        bench.registry.claim(worker="w", job_id=job_id, lease_sec=None)
        for step in range(3):
            bench.registry.publish(job_id, "progress", detail=f"step {step}", attempt=1)

    def attack(topic: str, payload: str, verdict: str) -> dict[str, int]:
        with bench.follow() as follower, RawClient(bench.settings.port) as third:
            bench.deliver()
            collect(follower, 6)
            before = _state(bench, "ours"), _state(bench, "theirs")
            third.say(topic, payload)
            if verdict != "duplicate":
                until(lambda: bench.refused() == {verdict: 1})
            # What comes behind it on the same way is accepted: so it was looked at, and it stopped nothing.
            last = bench.registry.publish("theirs", "progress", detail="after", attempt=1)
            bench.deliver()
            assert [event.seq for event in collect(follower, 1)] == [last.seq]
        assert _state(bench, "ours") == before[0]
        return bench.refused()

    return attack


def test_a_recorded_message_again_is_a_duplicate_and_no_alarm(
    bench: Bench, watched: Callable[..., dict[str, int]]
) -> None:
    payload = bench.registry.events("ours")[1].payload
    assert watched("jobdb/jobs/ours/events", payload, "duplicate") == {}


def test_a_recorded_message_again_for_a_subscriber_that_began_later_is_replayed(bench: Bench) -> None:
    job = bench.job(job_id="ours")
    bench.registry.claim(worker="w", job_id="ours", lease_sec=None)
    recorded = [bench.registry.publish("ours", "progress", attempt=1).payload for _ in range(3)]
    bench.deliver()
    with bench.follow("ours", start="now", subscriber="late"), RawClient(bench.settings.port) as third:
        third.say(job.topic, recorded[1])
        until(lambda: bench.refused() == {"replayed": 1})
    [refusal] = bench.registry.refusals()
    assert (refusal.job_id, refusal.seq, refusal.subscriber) == ("ours", 2, "late")
    assert any("replayed" in line and "job ours seq 2" in line for line in bench.said)


def test_an_altered_message_is_a_bad_signature(bench: Bench, watched: Callable[..., dict[str, int]]) -> None:
    payload = json.loads(bench.registry.events("ours")[-1].payload)
    payload["detail"] = "the attacker's words"
    payload["seq"] = 4
    assert watched("jobdb/jobs/ours/events", json.dumps(payload), "bad_signature") == {"bad_signature": 1}
    assert not any("the attacker's words" in line for line in bench.said)
    assert not any(payload["data"]["hmac_sig"] in line for line in bench.said)


def test_another_jobs_token_is_a_bad_signature(bench: Bench, watched: Callable[..., dict[str, int]]) -> None:
    forged = _signed(bench, "ours", 4, event="completed", token_of="theirs")
    assert watched("jobdb/jobs/ours/events", forged, "bad_signature") == {"bad_signature": 1}


def test_another_jobs_topic_is_the_wrong_one(bench: Bench, watched: Callable[..., dict[str, int]]) -> None:
    genuine = _signed(bench, "ours", 4, event="completed")
    assert watched("jobdb/jobs/theirs/events", genuine, "wrong_topic") == {"wrong_topic": 1}


def test_no_signature_is_unsigned(bench: Bench, watched: Callable[..., dict[str, int]]) -> None:
    payload = json.loads(_signed(bench, "ours", 4))
    del payload["data"]["hmac_sig"]
    assert watched("jobdb/jobs/ours/events", json.dumps(payload), "unsigned") == {"unsigned": 1}


def test_rubbish_is_malformed(watched: Callable[..., dict[str, int]]) -> None:
    assert watched("jobdb/jobs/ours/events", "{", "malformed") == {"malformed": 1}


def test_an_unknown_job_is_said(watched: Callable[..., dict[str, int]], bench: Bench) -> None:
    payload = json.loads(_signed(bench, "ours", 4))
    payload["job_id"] = "nobody"
    assert watched("jobdb/jobs/nobody/events", json.dumps(payload), "unknown_job") == {"unknown_job": 1}


def test_a_retained_stale_terminal_is_refused_and_changes_nothing(bench: Bench) -> None:
    job = bench.job(job_id="again")
    bench.registry.claim(worker="w1", job_id="again", lease_sec=None)
    bench.registry.publish("again", "progress", attempt=1)
    stale = _signed(bench, "again", 2, event="completed", attempt=1)
    bench.registry.release("again", attempt=1)
    bench.registry.claim(worker="w2", job_id="again", lease_sec=None)
    bench.deliver()
    with RawClient(bench.settings.port) as third:
        third.say(job.topic, stale, retain=True)
    with bench.follow("again") as follower:
        until(lambda: bench.refused() == {"stale_attempt": 1})
        assert bench.registry.get("again").status is JobStatus.RUNNING
        bench.registry.complete("again", attempt=2)
        assert [(event.seq, event.event.value) for event in follower] == [(1, "progress"), (2, "completed")]
    assert bench.refused() == {"stale_attempt": 1}


def test_a_forged_event_from_far_ahead_or_of_an_unseen_job_moves_nobody(bench: Bench) -> None:
    """It must not make the subscriber take from the database what has not come, nor begin with a job."""
    job = bench.job(job_id="ours")
    bench.registry.claim(worker="w", job_id="ours", lease_sec=None)
    with bench.follow(), RawClient(bench.settings.port) as third:
        bench.registry.publish("ours", "progress", attempt=1)
        forged = json.loads(_signed(bench, "ours", 400))
        forged["detail"] = "altered"
        third.say(job.topic, json.dumps(forged))
        third.say("jobdb/jobs/theirs/events", _signed(bench, "ours", 400))
        until(lambda: bench.refused() == {"bad_signature": 1, "wrong_topic": 1})
        assert bench.registry.subscriptions() == []


def test_a_forged_event_does_not_stand_in_for_a_lost_one(bench: Bench) -> None:
    """It has the lost one's number and comes in one batch with the next genuine one."""
    job = bench.job(job_id="ours")
    bench.registry.claim(worker="w", job_id="ours", lease_sec=None)
    engine = bench.registry.engine
    with bench.follow() as follower, RawClient(bench.settings.port) as third:
        bench.registry.publish("ours", "progress", attempt=1)
        bench.deliver()
        collect(follower, 1)
        lost, after = (bench.registry.publish("ours", "progress", attempt=1) for _ in range(2))
        engine.mark_delivered([delivery.number for delivery in engine.outbox(after=0, limit=10)])
        forged = json.loads(lost.payload)
        forged["detail"] = "altered"
        hold, held = threading.Event(), threading.Event()

        def keep_others_waiting() -> None:
            with Registry.open(bench.path, vault=bench.vault) as other, other.engine.store.write():
                held.set()
                hold.wait(LIMIT_SEC)

        keeper = threading.Thread(target=keep_others_waiting)
        keeper.start()
        assert held.wait(LIMIT_SEC)
        third.say(job.topic, "{")  # the intake's turn with it waits for the keeper, and the next two for the intake
        until(lambda: follower._intake._inbox)
        third.say(job.topic, json.dumps(forged))
        third.say(job.topic, after.payload)
        until(lambda: len(follower._intake._inbox) == 3)
        hold.set()
        keeper.join(LIMIT_SEC)
        assert [event.seq for event in collect(follower, 2)] == [2, 3]
    assert not any("did not arrive" in line for line in bench.said)
    assert bench.refused() == {"malformed": 1, "bad_signature": 1}


def test_a_flood_of_refusals_is_said_within_bounds(bench: Bench) -> None:
    bench.job(job_id="ours")
    with bench.follow(), RawClient(bench.settings.port) as third:
        for number in range(100):
            third.say("jobdb/jobs/ours/events", f"rubbish {number}")
        until(lambda: bench.refused() == {"malformed": 100})
    assert sum("refused" in line for line in bench.said) <= 21


def test_another_subscriber_of_the_same_name_is_suspected_and_does_no_harm(bench: Bench) -> None:
    job = bench.job()
    with bench.follow(job.job_id), bench.follow(job.job_id) as second, bench.relaying():
        until(lambda: any("does another process subscribe as 'watcher'?" in line for line in bench.said))
        bench.run_job(job, events=4)
        assert [event.seq for event in second] == [1, 2, 3, 4]
    assert bench.refused() == {}
