"""Exceptions that cut a verb off, and forked children: no connection is lost, and no transaction stays open."""

import os
import random
import signal

import psycopg

from jobdb import Registry
from jobdb.engines.postgresql.pool import MOST_CONNECTIONS


class Interrupted(Exception):
    """What the signal handler raises."""


def test_a_storm_of_signals_costs_no_connection_and_leaves_no_transaction(url):
    chance = random.Random(20260619)

    def ring(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with Registry.open(url, create=True, busy_timeout_sec=5) as registry:
            job = registry.register(agent="a", prompt="", timeout_sec=0, idle_timeout_sec=0).job_id
            acknowledged = []
            for _ in range(8 * MOST_CONNECTIONS):
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.02))
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


def test_a_forked_child_opens_its_own_and_its_parent_goes_on(url):
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
