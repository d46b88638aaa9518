"""Test several processes at once, and processes that die, on every engine."""

import os
import random
import time
from collections import Counter, defaultdict

import pytest

from jobdb import IllegalTransition, JobStatus, NewJob, StaleAttempt, TimedOut
from tests.support.keys import TOKEN
from tests.support.verb_workers import VerbWorkers
from tests.support.wire_events import signed

PROCESSES = 8


@pytest.fixture
def worker_processes(tmp_path, database):
    folder = tmp_path / "acks"
    folder.mkdir()
    worker_processes = VerbWorkers(folder, database.url)
    yield worker_processes
    worker_processes.kill()


FULL_SIZE = os.environ.get("JOBDB_WHOLE_CONFORMANCE") == "1"


def scaled(database, count):
    """Return a quarter of the work where a commit takes longer; `make torture` does it all."""
    return count if FULL_SIZE or database.name == "sqlite-wal" else count // 4


def test_many_publishers_of_one_job_leave_no_gap_and_no_duplicate(database, worker_processes):
    each = scaled(database, 500)
    with database.open() as registry:
        job_id = registry.register(agent="a", prompt="").job_id
    entries = worker_processes.run(PROCESSES, "publish", job_id, each)
    assert sorted(entry["seq"] for entry in entries) == list(range(1, PROCESSES * each + 1))
    with database.open() as registry:
        assert registry.get(job_id).last_seq == PROCESSES * each
        stored = [event.seq for event in registry.events(job_id, limit=10_000)]
    assert stored == list(range(1, PROCESSES * each + 1))


def test_each_job_is_claimed_once(database, worker_processes):
    count = scaled(database, 2000)
    with database.open() as registry:
        ids = {job.job_id for job in registry.register_many([NewJob(agent="a", prompt="")] * count)}
    entries = worker_processes.run(PROCESSES, "claim_all")
    assert Counter(entry["job_id"] for entry in entries) == Counter(ids)
    assert {entry["attempt"] for entry in entries} == {1}
    with database.open() as registry:
        assert registry.count_by_status()[JobStatus.RUNNING] == count


def test_every_attempt_of_jobs_whose_leases_keep_expiring_is_given_once(database, worker_processes):
    tries = scaled(database, 40)
    with database.open() as registry:
        ids = [
            job.job_id for job in registry.register_many([NewJob(agent="a", prompt="", max_attempts=tries)] * PROCESSES)
        ]
    worker_processes.begin(
        [worker_processes.add("claim_expiring", f"w{number}", ",".join(ids)) for number in range(PROCESSES)]
    )
    entries = worker_processes.finish()
    claimed = Counter((entry["job_id"], entry["attempt"]) for entry in entries)
    # One use of a try per attempt: the last one ends the job.
    assert claimed == Counter((job_id, attempt) for job_id in ids for attempt in range(1, tries + 1))
    with database.open() as registry:
        for job_id in ids:
            job = registry.get(job_id)
            assert (job.status, job.attempt, job.strikes) == (JobStatus.ERROR, tries, tries - 1)
            assert [event.event for event in registry.events(job_id)] == ["error"]


def test_concurrent_batches_over_the_same_jobs_do_not_deadlock(database, worker_processes):
    with database.open() as registry:
        ids = [job.job_id for job in registry.register_many([NewJob(agent="a", prompt="")] * 6)]
    each = scaled(database, 60)
    entries = worker_processes.run(6, "publish_batches", ",".join(ids), each)
    by_job = defaultdict(list)
    for entry in entries:
        by_job[entry["job_id"]].append(entry["seq"])
    assert set(by_job) == set(ids)
    assert all(sorted(seqs) == list(range(1, 6 * each + 1)) for seqs in by_job.values())


def test_one_idempotency_key_registers_one_job_across_processes(database, worker_processes):
    entries = worker_processes.run(PROCESSES, "register_keys", 25)
    jobs = defaultdict(set)
    for entry in entries:
        jobs[entry["key"]].add(entry["job_id"])
    assert len(jobs) == 25 and all(len(ids) == 1 for ids in jobs.values())
    with database.open() as registry:
        assert len(registry.jobs(limit=1000)) == 25


def accept_in_four_processes(database, worker_processes, folder, *, count, window):
    """Accept the same signed events in four processes, each in another order; return job id and log entries."""
    with database.open() as registry:
        job_id = registry.register(agent="a", prompt="", auth_token=TOKEN).job_id
    file = folder / "lines"
    file.write_text("".join(signed(job_id, seq, token=TOKEN) + "\n" for seq in range(1, count + 1)))
    return job_id, worker_processes.run(4, "accept_lines", file, window)


def test_processes_of_one_subscriber_accept_each_event_once(database, worker_processes, tmp_path):
    count = 120
    job_id, entries = accept_in_four_processes(database, worker_processes, tmp_path, count=count, window=10_000)
    verdicts = defaultdict(Counter)
    for entry in entries:
        verdicts[entry["seq"]][entry["verdict"]] += 1
    expected = Counter(accepted=1, duplicate=3)
    assert all(verdicts[seq] == expected for seq in range(1, count + 1)), dict(verdicts)
    with database.open() as registry:
        assert len(registry.events(job_id)) == count and registry.get(job_id).last_seq == count


def test_a_strict_subscriber_accepts_an_ascending_run_only(database, worker_processes, tmp_path):
    job_id, entries = accept_in_four_processes(database, worker_processes, tmp_path, count=60, window=0)
    accepted = Counter(entry["seq"] for entry in entries if entry["verdict"] == "accepted")
    assert accepted and set(accepted.values()) == {1}
    with database.open() as registry:
        assert {event.seq for event in registry.events(job_id)} == set(accepted)


def test_a_feed_misses_no_concurrent_event(database, worker_processes):
    each, writers = scaled(database, 120), 5
    with database.open() as registry:
        ids = [job.job_id for job in registry.register_many([NewJob(agent="a", prompt="")] * writers)]
        follower = registry.subscribe(subscriber="all", timeout_sec=90)
        worker_processes.begin([worker_processes.add("publish", job_id, each) for job_id in ids])
        seen = defaultdict(list)
        while sum(map(len, seen.values())) < each * writers:
            event = next(follower)
            seen[event.job_id].append(event.seq)
        assert seen == {job_id: list(range(1, each + 1)) for job_id in ids}
        follower.handled()
        worker_processes.finish()
        with pytest.raises(TimedOut):
            next(registry.subscribe(subscriber="all", timeout_sec=0.1))


def test_killed_workers_lose_nothing_acknowledged(database, worker_processes):
    """SIGKILL at random moments: leases expire, jobs are requeued, old attempts are refused."""
    count, lease_sec = 60, 0.5
    rng = random.Random(7)
    with database.open() as registry:
        ids = [job.job_id for job in registry.register_many([NewJob(agent="a", prompt="")] * count)]
        worker_processes.begin([worker_processes.add("run_worker", lease_sec) for _ in range(4)])
        deadline = time.monotonic() + 120
        kills = 0
        while registry.count_by_status()[JobStatus.COMPLETED] < count or kills < 6:
            assert time.monotonic() < deadline, registry.count_by_status()
            time.sleep(rng.uniform(0.02, 0.25))
            if kills < 12:
                rng.choice([process for process in worker_processes.processes if process.poll() is None]).kill()
                kills += 1
                worker_processes.begin([worker_processes.add("run_worker", lease_sec)])
            registry.reap(strike_limit=1000)
    worker_processes.kill()
    entries = worker_processes.entries()
    claims = Counter((entry["job_id"], entry["attempt"]) for entry in entries if entry["did"] == "claim")
    assert set(claims.values()) == {1}
    with database.open() as registry:
        for job_id in ids:
            _check_job_history(registry, job_id, [entry for entry in entries if entry["job_id"] == job_id])


def _check_job_history(registry, job_id, entries):
    events = {event.seq: event for event in registry.events(job_id)}
    job = registry.get(job_id)
    assert job.status is JobStatus.COMPLETED and sorted(events) == list(range(1, job.last_seq + 1))
    published = [entry for entry in entries if entry["did"] == "publish"]
    assert len({entry["seq"] for entry in published}) == len(published)
    for entry in published:
        assert events[entry["seq"]].payload == entry["line"]
    attempts = [events[seq].attempt for seq in sorted(events)]
    assert attempts == sorted(attempts)
    for attempt in range(1, job.attempt + 1):
        with pytest.raises((StaleAttempt, IllegalTransition)):
            registry.publish(job_id, "progress", attempt=attempt)
        with pytest.raises(StaleAttempt):
            registry.renew(job_id, attempt=attempt)
