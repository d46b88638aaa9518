"""Test copying a whole registry between engines: equal, complete, all or nothing."""

import itertools
import os
import resource
import sqlite3

import pytest
from jobdb.schema import migration_files

from jobdb import AlreadyExists, Broker, JobStatus, NewEvent, NewJob, StorageFailed, TimedOut, WorkBatch
from jobdb.engines.statements import parameters
from jobdb.model import EventKind
from jobdb.operations.copy import COPY, TABLES, TABLES_NOT_COPIED, copy_registry, registry_digest
from tests.support.databases import ENGINES
from tests.support.keys import TOKEN, vault
from tests.support.wire_events import signed
from tests.support.worker_records import worker_info

JOBS = int(os.environ.get("JOBDB_COPY_JOBS", "2000"))
WORKER = worker_info("w1")


def populate(registry, count=20):
    """Write rows of every kind."""
    jobs = registry.register_many(
        NewJob(
            agent=f"agent{number % 3}",
            prompt=f"prompt {number} ä🎉\n",
            job_id=f"job{number}",
            auth_token=TOKEN,
            broker=Broker("mqtt.example", username="u") if number % 4 == 0 else None,
            broker_password="hunter2-hunter2" if number % 4 == 0 else None,
            idempotency_key=f"key{number}" if number % 5 == 0 else None,
            extra={"n": number, "nul": "a\x00b"},
            expected_artifacts=["a/b.txt"],
            max_attempts=number if number % 6 else None,
        )
        for number in range(count)
    )
    ids = [job.job_id for job in jobs]
    registry.add_worker(WORKER)
    taken = registry.work_batch(
        WorkBatch(worker_id=WORKER.worker_id, worker="w", claim=count // 4, lease_sec=60, log_dir="/var/log/jobs")
    )
    assert [claim.job_id for claim in taken.claims] == ids[: count // 4]
    for job_id in ids[count // 4 : count // 2]:
        registry.claim(worker="w", job_id=job_id, lease_sec=60)
    attempts = {job_id: 1 if number < count // 2 else None for number, job_id in enumerate(ids)}
    events = [
        NewEvent(job_id=name, event=EventKind.PROGRESS, detail="x", data={"k": 1}, attempt=attempts[name])
        for name in ids
    ]
    registry.publish_many(events * 3)
    for name in ids[::7]:
        registry.complete(name, attempt=attempts[name])
    registry.cancel(ids[1])
    registry.tokens.rotate(ids[2])
    registry.tokens.revoke(ids[2], 1)
    for name in ids[::3]:
        lines = [event.payload for event in registry.events(name)]
        registry.accept_many([lines[0], lines[2]], subscriber="gappy")
        registry.accept(signed(name, 1, token=TOKEN, detail="forged?"), subscriber="gappy")
    registry.accept("garbage", subscriber="s")
    next(registry.subscribe(subscriber="all", timeout_sec=30))
    registry.release(ids[3], attempt=1, delay_sec=600, reason="later")
    registry.engine.acquire_lease("relay", holder="h", lease_ms=1000)


def dump(registry):
    """Return everything that the public verbs show."""
    jobs = registry.jobs(limit=10_000)
    return {
        "jobs": jobs,
        "events": {job.job_id: registry.events(job.job_id, limit=10_000) for job in jobs},
        "attempts": {job.job_id: registry.attempts(job.job_id) for job in jobs},
        "tokens": {job.job_id: registry.tokens.list(job.job_id) for job in jobs},
        "secrets": {job.job_id: registry.tokens.show(job.job_id) for job in jobs},
        "brokers": {job.job_id: registry.engine.broker(job.job_id) for job in jobs},
        "outbox": registry.engine.outbox(after=0, limit=10_000),
        "subscriptions": registry.subscriptions(limit=10_000),
        "refusals": registry.refusals(limit=10_000),
        "verdicts": registry.verdict_counts(),
    }


@pytest.mark.parametrize(("one", "other"), list(itertools.product(ENGINES, ENGINES)))
def test_a_copy_is_equal_and_can_be_continued(make_database, one, other):
    source, target = make_database(one), make_database(other)
    with source.open() as origin, target.open() as copy:
        populate(origin)
        before = dump(origin)
        report = copy_registry(origin, copy)
        assert dump(copy) == before == dump(origin)
        assert report.digest == registry_digest(origin) == registry_digest(copy)
        assert report.rows["jobs"] == 20 and report.as_dict()["events"] == 60 + 3
        # The copy is a registry like any other: seqs continue, cursors hold, old deliveries are duplicates.
        first = before["events"]["job3"][0]
        assert copy.accept(first.payload, subscriber="gappy").verdict == "duplicate"
        assert copy.accept(before["events"]["job3"][1].payload, subscriber="gappy", window=5).verdict == "accepted"
        fresh = copy.register(agent="new", prompt="")
        assert copy.publish(fresh.job_id, "progress").seq == 1
        assert copy.jobs(limit=1) == [copy.get(fresh.job_id)]
        assert copy.register(agent="agent0", prompt="prompt 0 ä🎉\n", idempotency_key="key0").job_id == "job0"
        waiting = copy.register(agent="new", prompt="")
        assert copy.claim(worker="w", agent="new").job_id == waiting.job_id
        assert copy.engine.acquire_lease("relay", holder="another", lease_ms=1)
        # The workers stay where they are.
        assert [record.info for record in origin.workers()] == [WORKER] and copy.workers() == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_copy_is_another_registry_unless_it_continues_the_original(make_database, engine):
    source = make_database("sqlite-wal")
    with source.open() as origin:
        origin.engine.put_setting("registry_id", "0" * 32)
        origin.engine.put_setting("broker_identity", "0" * 32 + " older")
        origin.register(agent="a", prompt="")
        with make_database(engine).open() as copy:
            before = registry_digest(origin)
            assert copy_registry(origin, copy).digest == before == registry_digest(copy)
            own = copy.engine.setting("registry_id")
            assert own != "0" * 32 and len(own) == 32 and copy.engine.setting("broker_identity") is None
        with make_database(engine).open() as moved:
            assert copy_registry(origin, moved, same_registry=True).digest == before
            assert moved.engine.setting("registry_id") == "0" * 32
            assert moved.engine.setting("broker_identity") == "0" * 32 + " older"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_feed_that_has_seen_pruned_events_misses_none_after_a_copy(make_database, engine):
    source, target = make_database("sqlite-wal"), make_database(engine)
    with source.open() as origin, target.open() as copy:
        old, job = (origin.register(agent="a", prompt="").job_id for _ in range(2))
        origin.publish_many([NewEvent(job_id=old, event=EventKind.PROGRESS)] * 5)
        origin.complete(old)
        feed = origin.subscribe(subscriber="all", idle_timeout_sec=0.1)
        with pytest.raises(TimedOut):
            list(feed)
        assert origin.prune(older_than_sec=0, now_ms=origin.engine.store.clock() + 1) == [old]
        copy_registry(origin, copy)
        copy.publish(job, "progress")
        assert next(copy.subscribe(subscriber="all", timeout_sec=20)).job_id == job


def test_a_target_that_is_not_empty_is_refused(make_database):
    source, target = make_database("sqlite-wal"), make_database("sqlite-wal")
    with source.open() as origin, target.open() as copy:
        populate(origin)
        kept = copy.register(agent="a", prompt="")
        with pytest.raises(AlreadyExists, match="not empty"):
            copy_registry(origin, copy)
        assert copy.jobs() == [kept]


@pytest.mark.parametrize("engine", ["sqlite-wal", "postgresql"])
def test_a_copy_that_differs_is_not_kept(make_database, engine):
    """A trigger at the target plays the part of any bug that changes a row on its way."""
    source, target = make_database("sqlite-wal"), make_database(engine)
    if engine == "postgresql":
        target.sql(
            "CREATE FUNCTION spoil() RETURNS TRIGGER LANGUAGE plpgsql AS "
            "'BEGIN NEW.detail := ''spoilt''; RETURN NEW; END'; "
            "CREATE TRIGGER spoil BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION spoil()"
        )
    else:
        target.sql(
            "CREATE TRIGGER spoil AFTER INSERT ON jobs BEGIN UPDATE jobs SET detail = 'spoilt' WHERE id = new.id; END"
        )
    try:
        with source.open() as origin, target.open() as copy:
            populate(origin)
            with pytest.raises(StorageFailed, match="nothing was kept"):
                copy_registry(origin, copy)
            assert copy.jobs() == [] and copy.engine.outbox(after=0, limit=9) == []
    finally:
        if engine == "postgresql":
            target.sql("DROP TRIGGER spoil ON jobs; DROP FUNCTION spoil()")


def test_every_table_and_column_is_copied():
    connection = sqlite3.connect(":memory:")
    for _, _, path in migration_files("sqlite"):
        connection.executescript(path.read_text("utf-8"))
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    assert sorted(tables) == sorted((*TABLES, *TABLES_NOT_COPIED, "sqlite_sequence"))
    for table in TABLES:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        assert list(parameters(COPY[f"copy_write_{table}"].text)) == columns
        read = connection.execute(COPY[f"copy_read_{table}"].text).description
        assert [column[0] for column in read] == columns
    connection.close()


def test_a_large_registry_is_copied_there_and_back_in_bounded_memory(make_database):
    """SQLite to PostgreSQL and back; JOBDB_COPY_JOBS=50000 is the full size."""
    source, middle, back = make_database("sqlite-wal"), make_database("postgresql"), make_database("sqlite-wal")
    with source.open(durability="normal") as origin:
        for first in range(0, JOBS, 500):
            jobs = [
                NewJob(agent="a", prompt="p" * 200, job_id=f"j{number}")
                for number in range(first, min(first + 500, JOBS))
            ]
            origin.register_many(jobs)
            events = [NewEvent(job_id=job.job_id, event=EventKind.PROGRESS) for job in jobs] * 3
            lines = [event.payload for event in origin.publish_many(events)]
            origin.accept_many(lines[: len(jobs)], subscriber="watcher")
        expected = registry_digest(origin)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with source.open() as origin, middle.open() as copy:
        assert copy_registry(origin, copy).digest == expected
        assert copy.count_by_status()[JobStatus.RUNNING] == JOBS
    with middle.open(vault=vault()) as copy, back.open() as again:
        report = copy_registry(copy, again)
        assert report.digest == expected == registry_digest(again)
        assert report.rows["jobs"] == JOBS and report.rows["events"] == 3 * JOBS
        assert report.rows["subscriptions"] == JOBS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120 * 1024
