"""Test standby servers: a read-only one, and a synchronous one that is missing."""

import threading
import time

import psycopg
import pytest

from jobdb import Registry, StorageFailed, SyncFailed, TimedOut


def _query_server(server, statement):
    with psycopg.connect(server.url(), autocommit=True) as connection:
        return connection.execute(statement).fetchall()


def test_a_standby_serves_reads_and_waits_and_refuses_writes(killable_server):
    with Registry.open(killable_server.url(), create=True) as registry:
        job = registry.register(agent="a", prompt="p")
        registry.publish(job.job_id, "started")
    killable_server.kill()
    (killable_server.data / "standby.signal").touch()
    killable_server.start()
    with Registry.open(killable_server.url()) as registry:
        assert registry.get(job.job_id).last_seq == 1 and len(registry.events(job.job_id)) == 1
        with pytest.raises(TimedOut):
            registry.wait(job.job_id, timeout_sec=0.3)
        for verb in (lambda: registry.register(agent="a", prompt="p"), lambda: registry.claim(worker="w")):
            with pytest.raises(StorageFailed, match=r"is read-only .*name the primary server"):
                verb()


def test_a_commit_that_no_standby_has_confirmed_is_not_acknowledged(killable_server):
    with Registry.open(killable_server.url(), create=True) as registry:
        job = registry.register(agent="a", prompt="p")
        with psycopg.connect(killable_server.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names TO 'nobody'")
            connection.execute("SELECT pg_reload_conf()")
        raised = []

        def publish():
            with pytest.raises(SyncFailed, match="no synchronous standby has confirmed it") as caught:
                registry.publish(job.job_id, "started")
            raised.append(caught.value)

        publishing = threading.Thread(target=publish)
        publishing.start()
        deadline = time.monotonic() + 30
        cancelled = []
        while not cancelled and time.monotonic() < deadline:
            time.sleep(0.05)
            cancelled = _query_server(
                killable_server,
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
            )
        publishing.join(30)
        assert len(raised) == 1 and registry.get(job.job_id).last_seq == 1
        with psycopg.connect(killable_server.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)
        assert registry.publish(job.job_id, "progress").seq == 2
