"""Test claim, renew, release, reap and the named leases, on every engine."""

from datetime import UTC, datetime

import pytest

from jobdb import EventKind, IllegalTransition, JobStatus, KeyProblem, StaleAttempt
from jobdb.core.protocol import MAX_SEQ
from jobdb.crypto.master_key import MasterKey
from jobdb.crypto.vault import Vault
from tests.support.wire_events import signed


def register_jobs(registry, *priorities, agent="codex", session=None):
    return [
        registry.register(agent=agent, prompt="", priority=priority, agent_session=session).job_id
        for priority in priorities
    ]


def claim_id(registry, **wanted):
    claim = registry.claim(worker="w", **wanted)
    return claim and claim.job_id


def test_highest_priority_first_then_oldest(registry):
    a, b, c, d = register_jobs(registry, 0, 5, 5, -1)
    assert [claim_id(registry) for _ in range(5)] == [b, c, a, d, None]


def test_claims_are_filtered_by_agent_and_session(registry):
    (plain,) = register_jobs(registry, 9)
    first, second = register_jobs(registry, 0, 0, agent="hermes", session="tmux:1")
    (other,) = register_jobs(registry, 3, agent="codex", session="tmux:1")
    assert claim_id(registry, agent="nobody") is None
    assert claim_id(registry, agent_session="tmux:2") is None
    assert claim_id(registry, agent="hermes") == first
    assert claim_id(registry, agent="hermes", agent_session="tmux:1") == second
    assert claim_id(registry, agent_session="tmux:1") == other
    assert claim_id(registry, agent="codex") == plain


def test_a_claim_shows_its_worker_and_expiry(registry, clock, job):
    claim = registry.claim(worker="host1:4711", lease_sec=300)
    assert (claim.job_id, claim.attempt, claim.worker) == (job.job_id, 1, "host1:4711")
    assert claim.lease_expires_at == datetime.fromtimestamp(clock.now_ms / 1000 + 300, UTC)
    assert claim.job == registry.get(job.job_id)
    assert (claim.job.status, claim.job.worker) == (JobStatus.RUNNING, "host1:4711")
    assert claim.job.started_at.timestamp() * 1000 == clock.now_ms
    assert registry.events(job.job_id) == []


def test_a_claim_without_a_lease_never_expires(registry, clock, job):
    assert registry.claim(worker="w", lease_sec=None).lease_expires_at is None
    clock.advance(3000)
    assert registry.reap() == []


def test_a_named_job_is_claimed_only_while_pending(registry, job):
    assert claim_id(registry, job_id=job.job_id) == job.job_id
    with pytest.raises(IllegalTransition, match="running"):
        registry.claim(worker="w", job_id=job.job_id)
    registry.complete(job.job_id, attempt=1)
    with pytest.raises(IllegalTransition, match="completed"):
        registry.claim(worker="w", job_id=job.job_id)


def test_renew_counts_from_now(registry, clock, job):
    registry.claim(worker="w", lease_sec=10)
    clock.advance(9)
    renewed = registry.renew(job.job_id, attempt=1, lease_sec=20)
    assert renewed.lease_expires_at.timestamp() * 1000 == clock.now_ms + 20_000
    clock.advance(19)
    assert registry.reap() == []
    clock.advance(1)
    assert [reaped.action for reaped in registry.reap()] == ["returned"]


def test_released_jobs_are_pending_under_the_next_attempt(registry, job):
    registry.claim(worker="w")
    back = registry.release(job.job_id, attempt=1)
    assert (back.status, back.worker, back.lease_expires_at, back.attempt) == (JobStatus.PENDING, None, None, 1)
    for verb in (registry.renew, registry.release):
        with pytest.raises(StaleAttempt, match="attempt 1"):
            verb(job.job_id, attempt=1)
    assert registry.claim(worker="w2").attempt == 2


@pytest.mark.parametrize("ended_by", ["complete", "fail", "cancel", "release", "expiry"])
def test_an_old_attempt_is_refused_by_every_verb(registry, clock, job, ended_by):
    registry.claim(worker="w", lease_sec=10)
    if ended_by == "expiry":
        clock.advance(11)
        registry.reap()
    elif ended_by == "cancel":
        registry.cancel(job.job_id)
    else:
        getattr(registry, ended_by)(job.job_id, attempt=1)
    state = registry.get(job.job_id)
    for verb in (registry.renew, registry.release):
        with pytest.raises(StaleAttempt):
            verb(job.job_id, attempt=1)
    for event in EventKind:
        with pytest.raises((StaleAttempt, IllegalTransition)):
            registry.publish(job.job_id, event, attempt=1)
    assert registry.get(job.job_id) == state


def test_a_future_attempt_is_refused_too(registry, job):
    registry.claim(worker="w")
    with pytest.raises(StaleAttempt):
        registry.publish(job.job_id, "progress", attempt=2)
    with pytest.raises(StaleAttempt):
        registry.renew(job.job_id, attempt=2)


def test_expired_jobs_are_requeued_with_a_higher_attempt(registry, clock, job):
    for attempt in (1, 2):
        assert registry.claim(worker=f"w{attempt}", lease_sec=10).attempt == attempt
        assert registry.reap() == []
        clock.advance(10)
        (reaped,) = registry.reap()
        assert (reaped.job_id, reaped.action) == (job.job_id, "returned")
        assert f"w{attempt}" in reaped.reason
        after = registry.get(job.job_id)
        assert (after.status, after.strikes, after.detail) == (JobStatus.PENDING, attempt, reaped.reason)
        assert registry.reap() == []
    registry.claim(worker="w3", lease_sec=10)
    clock.advance(11)
    (reaped,) = registry.reap()
    assert reaped.action == "ended" and "strike 3 of 3" in reaped.reason
    ended = registry.get(job.job_id)
    assert (ended.status, ended.last_seq) == (JobStatus.ERROR, 1)
    (event,) = registry.events(job.job_id)
    assert event.event is EventKind.ERROR and event.data["reason"] == "lease_expired"
    assert registry.accept(event.payload, subscriber="s").verdict == "accepted"


def test_a_strike_limit_of_one_ends_the_job_at_once(registry, clock, job):
    registry.claim(worker="w", lease_sec=1)
    clock.advance(2)
    assert [reaped.action for reaped in registry.reap(strike_limit=1)] == ["ended"]


def test_jobs_past_their_time_limits_end_with_an_error(registry, clock):
    slow = registry.register(agent="a", prompt="", timeout_sec=100, idle_timeout_sec=0).job_id
    silent = registry.register(agent="a", prompt="", timeout_sec=0, idle_timeout_sec=30).job_id
    patient = registry.register(agent="a", prompt="", timeout_sec=0, idle_timeout_sec=0).job_id
    waiting = registry.register(agent="a", prompt="", timeout_sec=1, idle_timeout_sec=1, priority=-1).job_id
    for _ in range(3):
        registry.claim(worker="w", lease_sec=None)
    clock.advance(29)
    registry.publish(silent, "progress")
    clock.advance(29)
    assert registry.reap() == []
    clock.advance(1)
    (reaped,) = registry.reap()
    assert (reaped.job_id, reaped.action) == (silent, "ended") and "idle" in reaped.reason
    assert registry.events(silent)[-1].data["reason"] == "idle"
    clock.advance(41)
    (reaped,) = registry.reap()
    assert (reaped.job_id, reaped.action) == (slow, "ended") and "100 s" in reaped.reason
    assert registry.events(slow)[-1].data["reason"] == "timeout"
    assert registry.get(patient).status is JobStatus.RUNNING
    assert registry.get(waiting).status is JobStatus.PENDING


def test_a_job_that_cannot_sign_does_not_block_the_reaping_of_others(registry, clock):
    revoked, numbered_out, idle, leased, good = (
        registry.register(agent="a", prompt="", timeout_sec=limit, idle_timeout_sec=quiet, auth=auth).job_id
        for limit, quiet, auth in (
            (5, 0, "required"),
            (5, 0, "never"),
            (0, 5, "required"),
            (0, 0, "required"),
            (5, 0, "required"),
        )
    )
    for job_id in (revoked, numbered_out, idle, leased, good):
        registry.claim(worker="w", job_id=job_id, lease_sec=5 if job_id == leased else None)
    last = signed(numbered_out, MAX_SEQ, token=None, attempt=1)
    assert registry.accept(last, subscriber="s").verdict == "accepted"
    for job_id in (revoked, idle, leased):
        registry.tokens.revoke(job_id, 1)
    clock.advance(6)
    reaped = registry.reap(strike_limit=1)
    assert {one.job_id: one.action for one in reaped} == dict.fromkeys(
        (revoked, numbered_out, idle, leased, good), "ended"
    )
    assert len(registry.events(good)) == 1
    for job_id in (revoked, idle, leased):
        job = registry.get(job_id)
        assert (job.status, job.last_seq, job.lease_expires_at, registry.events(job_id)) == ("error", 0, None, [])
        follower = registry.subscribe(job_id, subscriber="f", timeout_sec=20)
        assert list(follower) == [] and follower.outcome == job
    assert registry.get(numbered_out).status is JobStatus.ERROR and registry.reap() == []


def test_a_reaper_without_the_master_key_ends_nothing(registry, clock, database):
    job_id = registry.register(agent="a", prompt="", timeout_sec=5).job_id
    registry.claim(worker="w")
    clock.advance(6)
    with database.open(vault=Vault(MasterKey(bytes(31) + b"1", "a test"))) as other, pytest.raises(KeyProblem):
        other.reap()
    assert registry.get(job_id).status is JobStatus.RUNNING
    assert [one.job_id for one in registry.reap()] == [job_id] and registry.events(job_id)[-1].event == "error"


def test_ending_a_released_job_is_a_new_attempt(registry, job):
    registry.claim(worker="w")
    registry.release(job.job_id, attempt=1)
    assert registry.complete(job.job_id).attempt == 2
    assert registry.get(job.job_id).attempt == 2


def test_reap_works_in_batches(registry, clock):
    ids = register_jobs(registry, *[0] * 7)
    for _ in ids:
        registry.claim(worker="w", lease_sec=5)
    clock.advance(6)
    sizes = [len(registry.reap(limit=3)) for _ in range(4)]
    assert sizes == [3, 3, 1, 0]


def test_a_reaped_job_is_not_ended_twice(registry, clock):
    """A job past its time limit whose lease has expired, too, is reaped for one of the two."""
    job_id = registry.register(agent="a", prompt="", timeout_sec=5, max_attempts=1).job_id
    registry.claim(worker="w", lease_sec=5)
    clock.advance(6)
    (reaped,) = registry.reap()
    assert reaped.action == "ended"
    assert len(registry.events(job_id)) == 1
    assert registry.reap() == []


def test_named_leases_have_one_holder(registry, clock):
    take = registry.engine.acquire_lease
    assert take("relay", holder="a", lease_ms=1000)
    assert take("relay", holder="a", lease_ms=1000)
    assert not take("relay", holder="b", lease_ms=1000)
    assert take("other", holder="b", lease_ms=1000)
    registry.engine.release_lease("relay", holder="b")
    assert not take("relay", holder="b", lease_ms=1000)
    clock.advance(1)
    assert take("relay", holder="b", lease_ms=1000)
    registry.engine.release_lease("relay", holder="b")
    assert take("relay", holder="a", lease_ms=1000)
