"""Test interrupted verbs and forked children: no connection is lost, and no transaction stays open."""

import os
import random
import signal

import psycopg
import pytest

from jobdb import Registry
from jobdb.engines.postgresql.pool import MAX_CONNECTIONS
from jobdb.engines.sql.statements import JOBS
from tests.support.forks import DONE, FAILED, REFUSED, fork_in_transaction, run_in_child
from tests.support.interrupts import Interrupted, interrupt_each_point


def test_repeated_signals_leak_no_connection_and_leave_no_transaction(url):
    rng = random.Random(20260619)

    def ring(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with Registry.open(url, create=True, busy_timeout_sec=5) as registry:
            job = registry.register(agent="a", prompt="", timeout_sec=0, idle_timeout_sec=0).job_id
            acknowledged = []
            for _ in range(8 * MAX_CONNECTIONS):
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.001, 0.02))
                    while True:
                        acknowledged.append(registry.publish(job, "progress").seq)
                except Interrupted:
                    pass
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                acknowledged.append(registry.publish(job, "progress").seq)
            with psycopg.connect(url) as other:
                other.execute("SET lock_timeout = '5s'")
                assert other.execute("SELECT count(*) FROM (SELECT 1 FROM jobs FOR UPDATE) AS locked").fetchone() == (
                    1,
                )
            seqs = [event.seq for event in registry.events(job, limit=10_000)]
            assert seqs == list(range(1, len(seqs) + 1))
            assert set(acknowledged) <= set(seqs)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_forked_child_opens_its_own_and_its_parent_continues(url):
    with Registry.open(url, create=True) as registry:
        job = registry.register(agent="a", prompt="")
        registry.engine.store.data_version()  # the listener runs too
        child = os.fork()
        if not child:
            code = 1
            try:
                with Registry.open(url) as own:
                    own.publish(job.job_id, "progress")
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert registry.publish(job.job_id, "progress").seq == 2


@pytest.mark.parametrize("verb", ["publish", "claim", "get", "subscribe"])
def test_a_verb_interrupted_at_any_point_keeps_no_connection_and_no_transaction(url, verb):
    with Registry.open(url, create=True, busy_timeout_sec=5) as registry, psycopg.connect(url) as other:
        job = registry.register(agent="a", prompt="", timeout_sec=0, idle_timeout_sec=0).job_id
        other.autocommit = True
        other.execute("SET lock_timeout = '2s'")
        run = {
            "publish": lambda: registry.publish(job, "progress"),
            "claim": lambda: registry.claim(worker="w", agent="nobody"),
            "get": lambda: registry.get(job),
            "subscribe": lambda: next(registry.subscribe(job, subscriber="s", start="beginning", timeout_sec=20)),
        }[verb]

        def check(where):
            with other.transaction():
                other.execute("SELECT 1 FROM jobs FOR UPDATE")
            registry.publish(job, "progress")

        registry.publish(job, "progress")
        assert interrupt_each_point(run, check, max_points=25) > 3
        store = registry.engine.store
        open_now = [slot for kept in store._pool._slots if (slot := kept()) is not None and not slot.free]
        assert len(open_now) <= 2
        seqs = [event.seq for event in registry.events(job, limit=10_000)]
        assert seqs == list(range(1, len(seqs) + 1))


def test_interrupting_more_verbs_than_there_are_connections_blocks_no_later_verb(url):
    """A kept exception does not occupy a connection for ever: its slot is free when the exception is dropped."""
    with Registry.open(url, create=True, busy_timeout_sec=5) as registry:
        pool = registry.engine.store._pool
        for _ in range(2 * MAX_CONNECTIONS):
            held = []
            pool._acquire(held)
            del held  # interrupted between acquire and release
        assert registry.jobs() == []


@pytest.mark.parametrize("way", ["os._exit", "sys.exit", "collected", "in a block"])
def test_a_child_that_exits_sends_nothing_on_its_parents_connections(url, way):
    with Registry.open(url, create=True) as registry:
        job = registry.register(agent="a", prompt="").job_id

        def child():
            if way == "collected":
                import gc

                registry.engine.store._pool._idle.clear()
                gc.collect()
            elif way == "sys.exit":
                raise SystemExit

        if way == "in a block":
            assert fork_in_transaction(registry) == REFUSED
            with registry.engine.store.read() as tx:
                assert tx.one(JOBS.get_setting, name="by") == ("parent",)
        else:
            backend = "SELECT pg_backend_pid()"
            with registry.engine.store._pool.connection() as connection:
                before = connection.execute(backend).fetchone()
            assert run_in_child(child) == (FAILED if way == "sys.exit" else DONE)
            with registry.engine.store._pool.connection() as connection:
                assert connection.execute(backend).fetchone() == before, "the same connection, still open"
        assert registry.publish(job, "progress").seq == 1
