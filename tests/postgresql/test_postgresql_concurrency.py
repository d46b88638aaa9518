"""Test concurrent writers: events that commit out of order, deadlocks, locks that are held too long."""

import threading
import time

import psycopg
import pytest

from jobdb import Busy, EventKind, NewEvent, Registry, TimedOut
from jobdb.crypto.master_key import MasterKey
from jobdb.crypto.vault import Vault
from jobdb.engines.postgresql.transaction import PostgresTransaction
from jobdb.engines.sql import publish_batch
from jobdb.engines.sql.sealer import seal, token_binding
from jobdb.engines.sql.statements import JOBS
from tests.support.threads import run_in_threads

_INSERT = """
INSERT INTO events (job, seq, event, recorded_ms, digest, payload)
SELECT id, last_seq + 1, 'progress', 1, decode(repeat('00', 32), 'hex'), %s FROM jobs WHERE job_id = %s
"""
_LINE = '{"schema_version":1,"seq":1,"job_id":"slow","event":"progress","timestamp":"2026-06-19T09:32:00Z","data":{}}'


@pytest.fixture
def registry(url):
    with Registry.open(url, create=True) as registry:
        for name in ("slow", "fast", "third"):
            registry.register(agent="a", prompt="", job_id=name)
        yield registry


@pytest.fixture
def open_transaction(url, registry):
    """A connection whose transaction the test holds open."""
    with psycopg.connect(url) as connection:
        yield connection


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_feed_waits_for_an_uncommitted_event_with_a_lower_id(registry, open_transaction, end):
    """The event with the lower id is committed after one with a higher id: it must not be skipped."""
    feed = registry.subscribe(subscriber="s", timeout_sec=20)
    registry.publish("third", "progress")
    assert next(feed).job_id == "third"
    open_transaction.execute(_INSERT, (_LINE, "slow"))
    registry.publish("fast", "progress")
    engine = registry.engine
    feed.handled()
    newest = open_transaction.execute("SELECT last_value FROM events_id_seq").fetchone()[0]
    assert engine.store.stable_events().event_id == newest - 2
    with pytest.raises(TimedOut):
        next(registry.subscribe(subscriber="s", timeout_sec=0.3))
    timer = threading.Timer(0.2, getattr(open_transaction, end))
    timer.start()
    began = time.monotonic()
    found = [next(feed).job_id]
    if end == "commit":
        found.append(next(feed).job_id)
    assert found == (["slow", "fast"] if end == "commit" else ["fast"])
    # Nothing announces the rollback: an event that was held back is looked for again soon.
    assert time.monotonic() - began < 3
    timer.join()
    assert engine.store.stable_events().event_id == newest


def test_a_feed_that_starts_now_yields_events_committed_later(registry, open_transaction):
    open_transaction.execute(_INSERT, (_LINE, "slow"))
    registry.publish("fast", "progress")
    feed = registry.subscribe(subscriber="s", start="now", timeout_sec=20)
    open_transaction.commit()
    assert "slow" in {next(feed).job_id, next(feed).job_id}


def test_one_transaction_takes_one_lock_for_any_number_of_events(registry, open_transaction):
    for _ in range(50):
        open_transaction.execute(_INSERT.replace("last_seq + 1", "(SELECT count(*) + 1 FROM events)"), (_LINE, "slow"))
    held = open_transaction.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    ).fetchone()
    assert held == (1,)
    open_transaction.rollback()


def test_a_deadlock_is_rolled_back_and_the_verb_retried(registry, url, open_transaction):
    """Another program locks jobs in another order, as no verb does."""
    lock = "SELECT 1 FROM jobs WHERE job_id = %s FOR UPDATE"
    open_transaction.execute(lock, ("fast",))
    done = []
    batch = [NewEvent(job_id=name, event=EventKind.PROGRESS) for name in ("fast", "slow")]
    thread = threading.Thread(target=lambda: done.append(registry.publish_many(batch)))
    thread.start()
    time.sleep(0.3)
    try:
        open_transaction.execute(lock, ("slow",))
        open_transaction.commit()
    except psycopg.errors.DeadlockDetected:
        open_transaction.rollback()
    thread.join(30)
    assert [[(event.job_id, event.seq) for event in events] for events in done] == [[("fast", 1), ("slow", 1)]]


def test_a_job_that_is_locked_too_long_is_busy(url, registry, open_transaction):
    open_transaction.execute("SELECT 1 FROM jobs WHERE job_id = 'slow' FOR UPDATE")
    with Registry.open(url, busy_timeout_sec=0.3) as impatient:
        with pytest.raises(Busy) as caught:
            impatient.publish("slow", "progress")
        assert caught.value.waited_sec >= 0.3 and "Nothing was written" in str(caught.value)
        assert impatient.publish("fast", "progress").seq == 1
    open_transaction.rollback()
    assert registry.events("slow") == []


def test_a_claim_skips_a_locked_job(registry, open_transaction):
    open_transaction.execute("SELECT 1 FROM jobs WHERE job_id = 'slow' FOR UPDATE")
    assert registry.claim(worker="w").job_id == "fast"


def test_too_many_threads_are_refused_as_busy(url, registry, open_transaction):
    open_transaction.execute("SELECT 1 FROM jobs WHERE job_id = 'slow' FOR UPDATE")
    with Registry.open(url, busy_timeout_sec=0.5) as crowded:
        errors = run_in_threads([lambda: crowded.publish("slow", "progress")] * 20, timeout_sec=30)
    assert len(errors) == 20 and all(isinstance(error, Busy) for error in errors), errors


def test_a_rekey_waits_for_the_first_secret_of_all(url):
    old, new = (Vault(MasterKey(bytes([number]) * 32, "a test")) for number in (1, 2))
    with Registry.open(url, create=True, vault=old) as first, Registry.open(url, vault=old) as second:
        first.register(agent="a", prompt="", job_id="j", auth="never")
        rekeying = threading.Thread(target=second.tokens.rekey, args=(new,))
        with first.engine.store.write() as tx:
            sealed = seal(tx, old, "a-secret", bound_to=token_binding("j", 1))
            number = tx.one(JOBS.job_number, job_id="j")[0]
            tx.run(JOBS.insert_token, job=number, kid=1, sealed=sealed, imported=0, now=tx.now_ms)
            rekeying.start()
            time.sleep(0.5)
        rekeying.join(60)
        assert second.tokens.show("j", kid=1) == "a-secret"


def test_a_job_registered_while_its_events_arrive(registry, url, monkeypatch):
    """It could not be locked before it existed: two writers of its first event may conflict."""
    steps = iter(("register", "publish"))
    lock_jobs, build = PostgresTransaction.lock_jobs, publish_batch.build

    with Registry.open(url) as other:

        def lock_then_register(tx, job_ids):
            lock_jobs(tx, job_ids)
            if next(steps, None) == "register":
                monkeypatch.setattr(PostgresTransaction, "lock_jobs", lock_jobs)
                other.register(agent="a", prompt="", job_id="new")

        def publish_then_build(**fields):
            if next(steps, None) == "publish":
                monkeypatch.setattr(publish_batch, "build", build)
                assert other.publish("new", "progress").seq == 1
            return build(**fields)

        monkeypatch.setattr(PostgresTransaction, "lock_jobs", lock_then_register)
        monkeypatch.setattr(publish_batch, "build", publish_then_build)
        assert registry.publish("new", "progress").seq == 2
        assert [event.seq for event in registry.events("new")] == [1, 2] and registry.get("new").last_seq == 2
