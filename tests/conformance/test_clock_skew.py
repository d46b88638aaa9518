"""Test clocks that are wrong: leases from a clock that was ahead end, and what has ended stays ended."""

from __future__ import annotations

import pytest

from jobdb import JobStatus, Verdict
from jobdb.registry import Registry
from tests.support.keys import TOKEN
from tests.support.wire_events import signed

YEARS_SEC = 9 * 366 * 86_400


@pytest.fixture
def future_leased_job(registry: Registry, clock):
    """A job whose lease of a minute was acquired by a clock nine years ahead; the clock is right again."""
    job = registry.register(agent="a", prompt="p")
    clock.advance(YEARS_SEC)
    registry.claim(worker="w", job_id=job.job_id, lease_sec=60)
    clock.advance(-YEARS_SEC)
    return job


def test_a_lease_with_an_impossibly_late_end_has_expired(registry, future_leased_job):
    (reaped,) = registry.reap()
    assert (reaped.job_id, reaped.action) == (future_leased_job.job_id, "returned")
    found = registry.get(future_leased_job.job_id)
    assert (found.status, found.strikes, found.lease_expires_at) == (JobStatus.PENDING, 0, None)
    assert "a clock was ahead" in found.detail
    assert registry.claim(worker="v", lease_sec=60).attempt == 2
    assert registry.reap() == []


def test_renewing_corrects_an_impossibly_late_lease(registry, future_leased_job):
    registry.renew(future_leased_job.job_id, attempt=1, lease_sec=60)
    assert registry.reap() == []


@pytest.mark.parametrize("seconds", [1, 59])
def test_small_clock_differences_are_tolerated(registry, clock, seconds):
    """Each of the hosts that share a folder has its own clock."""
    job = registry.register(agent="a", prompt="p", timeout_sec=10, idle_timeout_sec=10)
    registry.claim(worker="w", job_id=job.job_id, lease_sec=300)
    assert registry.engine.acquire_lease("relay", holder="a", lease_ms=15_000)
    clock.advance(-seconds)
    assert registry.reap() == []
    assert not registry.engine.acquire_lease("relay", holder="b", lease_ms=15_000)


def test_a_named_lease_with_an_impossibly_late_end_is_free(registry, clock):
    clock.advance(YEARS_SEC)
    assert registry.engine.acquire_lease("relay", holder="a", lease_ms=15_000)
    assert not registry.engine.acquire_lease("relay", holder="b", lease_ms=15_000)
    clock.advance(-YEARS_SEC)
    assert registry.engine.acquire_lease("relay", holder="b", lease_ms=15_000)
    assert not registry.engine.acquire_lease("relay", holder="c", lease_ms=3_600_000)


@pytest.mark.parametrize("limit", ["timeout_sec", "idle_timeout_sec"])
def test_limits_that_began_in_the_future_count_from_now(registry, clock, limit):
    job = registry.register(agent="a", prompt="p", **{"timeout_sec": 0, "idle_timeout_sec": 0, limit: 60})
    clock.advance(YEARS_SEC)
    registry.publish(job.job_id, "started")
    clock.advance(-YEARS_SEC)
    assert registry.reap() == []
    clock.advance(59)
    assert registry.reap() == []
    clock.advance(2)
    assert [reaped.job_id for reaped in registry.reap()] == [job.job_id]
    assert registry.get(job.job_id).status is JobStatus.ERROR


@pytest.mark.parametrize("limit", ["timeout_sec", "idle_timeout_sec"])
def test_limits_count_from_the_registration_if_the_clock_was_behind_at_the_claim(registry, clock, limit):
    job = registry.register(agent="a", prompt="p", **{"timeout_sec": 0, "idle_timeout_sec": 0, limit: 3600})
    clock.advance(-YEARS_SEC)
    registry.claim(worker="w", job_id=job.job_id, lease_sec=60)
    clock.advance(YEARS_SEC)
    (reaped,) = registry.reap()
    assert (reaped.job_id, reaped.action) == (job.job_id, "returned")
    clock.advance(-YEARS_SEC)
    registry.claim(worker="w", job_id=job.job_id, lease_sec=None)
    clock.advance(YEARS_SEC + 3599)
    assert registry.reap() == []
    clock.advance(2)
    (reaped,) = registry.reap()
    assert (reaped.job_id, reaped.action) == (job.job_id, "ended")


def test_an_overlap_with_an_impossibly_late_end_is_over(registry, clock):
    job = registry.register(agent="a", prompt="p", auth_token=TOKEN)
    clock.advance(YEARS_SEC)
    registry.tokens.rotate(job.job_id, overlap_sec=3600)
    assert [token.state for token in registry.tokens.list(job.job_id)] == ["overlap", "current"]
    clock.advance(-YEARS_SEC)
    event = signed(job.job_id, 1, token=TOKEN)
    assert registry.accept(event, subscriber="s").verdict is Verdict.REVOKED_KEY
    assert registry.tokens.list(job.job_id)[0].state == "expired"


def test_an_overlap_once_seen_over_stays_over(registry, clock, database):
    job = registry.register(agent="a", prompt="p", auth_token=TOKEN)
    registry.tokens.rotate(job.job_id, overlap_sec=60)
    event = signed(job.job_id, 1, token=TOKEN)
    clock.advance(61)
    assert registry.accept_many([event, event], subscriber="s")[1].verdict is Verdict.REVOKED_KEY
    clock.advance(-30)
    registry.close()
    with database.open() as again:
        assert again.accept(event, subscriber="s").verdict is Verdict.REVOKED_KEY
        assert [token.state for token in again.tokens.list(job.job_id)] == ["expired", "current"]


def test_an_overlap_is_over_if_the_job_has_a_later_event(registry, clock):
    """The old token was not used since: the job's later event shows that the overlap has ended."""
    job = registry.register(agent="a", prompt="p", auth_token=TOKEN)
    registry.tokens.rotate(job.job_id, overlap_sec=60)
    clock.advance(30)
    assert registry.accept(signed(job.job_id, 1, token=TOKEN), subscriber="s").verdict is Verdict.ACCEPTED
    clock.advance(31)
    registry.publish(job.job_id, "progress")
    clock.advance(-30)
    assert registry.accept(signed(job.job_id, 3, token=TOKEN), subscriber="s").verdict is Verdict.REVOKED_KEY


def test_an_overlap_that_is_not_over_is_valid(registry, clock):
    job = registry.register(agent="a", prompt="p", auth_token=TOKEN)
    registry.tokens.rotate(job.job_id, overlap_sec=60)
    clock.advance(-30)
    assert registry.accept(signed(job.job_id, 1, token=TOKEN), subscriber="s").verdict is Verdict.ACCEPTED


def test_the_doctor_lists_and_fixes_times_in_the_future(registry, clock, future_leased_job, database, monkeypatch):
    from jobdb.doctor.findings import DoctorReport
    from jobdb.doctor.timestamps import check_timestamps

    def found(*, fix=False):
        report = DoctorReport(database.url)
        check_timestamps(report, registry, fix=fix)
        (finding,) = report.findings
        return finding

    clock.advance(YEARS_SEC)
    done = registry.register(agent="a", prompt="p")
    registry.publish(done.job_id, "started")
    registry.tokens.rotate(done.job_id, overlap_sec=60)
    registry.complete(done.job_id)
    registry.accept("nonsense", subscriber="s")
    registry.engine.acquire_lease("relay", holder="a", lease_ms=15_000)
    clock.advance(-YEARS_SEC)

    before = found()
    assert before.level == "warn" and before.fix_command == "jobdb doctor --fix"
    for words in ("1 leases of jobs", "1 named leases", "1 overlaps", "2 jobs"):
        assert words in before.message
    assert registry.prune(older_than_sec=0, now_ms=clock.now_ms + 1) == []
    assert found(fix=True).level == "ok" and found().level == "ok"
    assert registry.get(done.job_id).finished_at.timestamp() * 1000 == clock.now_ms
    assert registry.prune(older_than_sec=0, now_ms=clock.now_ms + 1) == [done.job_id]
    assert [reaped.job_id for reaped in registry.reap()] == [future_leased_job.job_id]
