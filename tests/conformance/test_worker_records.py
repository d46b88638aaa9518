"""Test what became of claims, the records of workers and attempts, and the jobs of dead workers, on every engine."""

import pytest

from jobdb import (
    JobStatus,
    UnknownJob,
)
from tests.support.worker_records import back, batch, claimed_ids, event, register_jobs, worker_info

# -- what became of claims


def test_states_of_claims(registry, clock):
    running, done, cancelled, released, taken, late = register_jobs(registry, 5, 4, 3, 2, 1, 0)
    batch(registry, claim=6, lease_sec=20)
    registry.complete(done, attempt=1)
    registry.cancel(cancelled)
    registry.release(released, attempt=1)
    registry.release(taken, attempt=1)
    registry.claim(worker="w2", job_id=taken)
    keys = [(job_id, 1) for job_id in (running, done, cancelled, released, taken, late, "nobody")]
    assert registry.claim_states([*keys, (taken, 2), (running, 2)]) == {
        (running, 1): JobStatus.RUNNING,
        (done, 1): JobStatus.COMPLETED,
        (cancelled, 1): JobStatus.CANCELLED,
        (released, 1): None,
        (taken, 1): None,
        (late, 1): JobStatus.RUNNING,
        ("nobody", 1): None,
        (taken, 2): JobStatus.RUNNING,
        (running, 2): None,
    }
    clock.advance(30)
    assert registry.claim_states([(late, 1)]) == {(late, 1): JobStatus.RUNNING}  # not taken yet
    registry.reap()
    assert registry.claim_states([(late, 1)]) == {(late, 1): None}
    assert registry.claim_states([]) == {}


# -- workers and attempts


def test_workers_are_listed_with_their_jobs(registry, clock):
    first = worker_info("w1", agent="codex", log_dir="/var/log/jobs", lease_sec=12.5)
    second = worker_info("w2", name="host2:1", host="host2", machine="", boot_id="", pid_namespace="", pid_started=0)
    began = clock.now_ms
    registry.add_worker(first)
    clock.advance(5)
    registry.add_worker(second)
    a, b, c = register_jobs(registry, 2, 1, 0)
    batch(registry, "w1", claim=2)
    batch(registry, "w2", claim=2)
    batch(registry, "w1", events=(event(a, "completed"),), heartbeat=True)
    clock.advance(5)
    batch(registry, "w2", heartbeat=True)
    batch(registry, "w1", renew=((b, 1),))
    one, two = registry.workers()
    assert (one.info, two.info) == (first, second)
    assert (one.running, two.running) == (((b, 1),), ((c, 1),))
    at = [
        round(when.timestamp() * 1000) for when in (one.started_at, one.heartbeat_at, two.started_at, two.heartbeat_at)
    ]
    assert at == [began, began + 5000, began + 5000, began + 10_000]
    assert one.as_dict()["running"] == [{"job_id": b, "attempt": 1}]
    registry.remove_worker("w1")
    registry.remove_worker("w1")
    registry.remove_worker("nobody")
    assert [record.info for record in registry.workers()] == [second]
    assert [attempt.worker_id for attempt in registry.attempts(b)] == ["w1"]


def test_adding_a_worker_again_keeps_its_beginning(registry, clock):
    registry.add_worker(worker_info("w1"))
    began = clock.now_ms
    clock.advance(5)
    registry.add_worker(worker_info("w1", slots=2))
    (record,) = registry.workers()
    assert round(record.started_at.timestamp() * 1000) == began and record.info.slots == 2
    assert round(record.heartbeat_at.timestamp() * 1000) == clock.now_ms


def test_attempts_are_recorded_with_their_logs(registry, clock):
    (job_id,) = register_jobs(registry, 0)
    registry.add_worker(worker_info("w1"))
    registry.add_worker(worker_info("w2", host="host2"))
    first_at = clock.now_ms
    batch(registry, "w1", claim=1, log_dir="/var/log/jobs/")
    batch(registry, "w1", give_back=(back(job_id),))
    clock.advance(1)
    registry.claim(worker="by hand")
    registry.release(job_id, attempt=2)
    batch(registry, "w2", claim=1)
    assert [(one.attempt, one.worker, one.worker_id, one.host, one.log) for one in registry.attempts(job_id)] == [
        (1, "host1:w1", "w1", "host1", f"/var/log/jobs/{job_id}/1.log"),
        (3, "host1:w2", "w2", "host2", None),
    ]
    assert [round(one.started_at.timestamp() * 1000) for one in registry.attempts(job_id)] == [
        first_at,
        first_at + 1000,
    ]
    with pytest.raises(UnknownJob):
        registry.attempts("nobody")


def test_a_worker_that_is_not_recorded_leaves_no_attempts(registry):
    (job_id,) = register_jobs(registry, 0)
    assert claimed_ids(batch(registry, claim=1, log_dir="/logs", heartbeat=True)) == [job_id]
    assert registry.attempts(job_id) == [] and registry.workers() == []


def test_attempts_are_pruned_with_their_job(registry, clock):
    (job_id,) = register_jobs(registry, 0)
    registry.add_worker(worker_info("w1"))
    batch(registry, claim=1)
    batch(registry, events=(event(job_id, "completed"),))
    clock.advance(10)
    assert registry.prune(older_than_sec=1) == [job_id]
    registry.register(agent="a", prompt="", job_id=job_id)
    assert registry.attempts(job_id) == []


# -- dead workers


def test_the_jobs_of_an_earlier_boot_are_returned_at_once(registry, clock, monkeypatch):
    booted(monkeypatch, 100)
    registry.add_worker(worker_info("old", boot_id="boot1"))
    registry.add_worker(worker_info("present"))
    registry.add_worker(worker_info("elsewhere", boot_id="boot1", host="host2"))
    registry.add_worker(worker_info("other machine", boot_id="boot1", machine="machine2"))
    registry.add_worker(worker_info("unknown boot", boot_id=""))
    jobs = register_jobs(registry, *[0] * 5)
    for worker in ("old", "present", "elsewhere", "other machine", "unknown boot"):
        batch(registry, worker, claim=1, lease_sec=3600)
    clock.advance(101)
    (returned,) = registry.return_jobs_of_dead_workers(worker_info("new"))
    assert (returned.job_id, returned.action) == (jobs[0], "returned")
    assert returned.reason == "worker host1:old was lost at attempt 1: its host was restarted"
    job = registry.get(jobs[0])
    assert (job.status, job.strikes, job.detail) == (JobStatus.PENDING, 1, returned.reason)
    assert {registry.get(job_id).status for job_id in jobs[1:]} == {JobStatus.RUNNING}
    assert sorted(record.info.worker_id for record in registry.workers()) == [
        "elsewhere",
        "other machine",
        "present",
        "unknown boot",
    ]
    assert registry.return_jobs_of_dead_workers(worker_info("new")) == []


def test_a_clone_of_the_machine_that_renewed_after_our_boot_keeps_its_jobs(registry, clock, monkeypatch):
    """Clones share a name and an id, but not a boot. What was renewed since this one's boot is somebody's."""
    booted(monkeypatch, 100)
    registry.add_worker(worker_info("clone", boot_id="boot1"))
    renewed, stale = register_jobs(registry, 1, 0)
    batch(registry, "clone", claim=2, lease_sec=3600)
    clock.advance(200)
    batch(registry, "clone", renew=((renewed, 1),), lease_sec=3600)
    assert [one.job_id for one in registry.return_jobs_of_dead_workers(worker_info("new"))] == [stale]
    assert registry.get(renewed).status is JobStatus.RUNNING
    assert [record.info.worker_id for record in registry.workers()] == ["clone"]


@pytest.mark.parametrize("unknown", ["machine", "boot_id"])
def test_a_worker_that_knows_no_machine_or_boot_returns_nothing_of_others(registry, clock, unknown):
    registry.add_worker(worker_info("old", **{"boot_id": "boot1", unknown: ""}))
    register_jobs(registry, 0)
    batch(registry, "old", claim=1, lease_sec=3600)
    clock.advance(10**6 / 1000)
    assert registry.return_jobs_of_dead_workers(worker_info("new", **{unknown: ""})) == []
    assert [record.info.worker_id for record in registry.workers()] == ["old"]


def test_the_jobs_of_workers_that_are_known_to_be_dead_are_returned_or_ended(registry):
    registry.add_worker(worker_info("dead"))
    registry.add_worker(worker_info("alive"))
    again, kept = register_jobs(registry, 3, 1)
    (last_try,) = register_jobs(registry, 2, max_attempts=1)
    assert claimed_ids(batch(registry, "dead", claim=2, lease_sec=3600)) == [again, last_try]
    assert claimed_ids(batch(registry, "alive", claim=1, lease_sec=3600)) == [kept]
    found = registry.return_jobs_of_dead_workers(worker_info("new"), dead=["dead", "nobody"])
    assert [(one.job_id, one.action) for one in found] == [(again, "returned"), (last_try, "ended")]
    assert all("its process is gone" in one.reason for one in found)
    assert registry.events(last_try)[-1].event == "error"
    assert registry.get(kept).status is JobStatus.RUNNING
    assert [record.info.worker_id for record in registry.workers()] == ["alive"]


def test_workers_without_a_heartbeat_for_a_week_are_forgotten(registry, clock):
    registry.add_worker(worker_info("silent"))
    clock.advance(6 * 86_400)
    registry.add_worker(worker_info("fresh"))
    clock.advance(86_400 + 1)
    assert registry.return_jobs_of_dead_workers(worker_info("new")) == []
    assert [record.info.worker_id for record in registry.workers()] == ["fresh"]


def booted(monkeypatch, seconds_ago):
    """Let this host have booted a while ago, by the clock that counts since the boot."""
    monkeypatch.setattr("jobdb.registry.workers.time.clock_gettime", lambda _clock: float(seconds_ago))
