"""Test servers that die, connections that break and commits whose answer is lost: nothing twice, nothing lost."""

import os
import threading
import time
from collections import Counter

import psycopg
import pytest

from jobdb import NewJob, Registry, Unavailable
from jobdb.engines.postgresql.commit import was_committed
from jobdb.engines.postgresql.listener import listen
from jobdb.engines.sql.statements import JOBS
from tests.support.postgresql.commit_proxy import CommitProxy
from tests.support.postgresql.server import POSTGRES_PASSWORD
from tests.support.verb_workers import VerbWorkers


@pytest.fixture
def worker_processes(tmp_path, killable_server):
    worker_processes = VerbWorkers(tmp_path, killable_server.url())
    yield worker_processes
    worker_processes.kill()


def test_a_killed_and_restarted_server_loses_and_duplicates_nothing(killable_server, worker_processes):
    each, writers = 250, 4
    with Registry.open(killable_server.url(), create=True) as registry:
        ids = [job.job_id for job in registry.register_many([NewJob(agent="a", prompt="")] * 3)]
        worker_processes.begin([worker_processes.add("publish_with_ids", ",".join(ids), each) for _ in range(writers)])
        for _ in range(3):
            before = len(worker_processes.entries())
            deadline = time.monotonic() + 60
            while len(worker_processes.entries()) < before + 60 and time.monotonic() < deadline:
                time.sleep(0.02)
            killable_server.kill()
            time.sleep(0.3)
            killable_server.start()
        results = worker_processes.finish()
        found = Counter()
        for job_id in ids:
            events = registry.events(job_id, limit=10_000)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            found.update(event.data["mark"] for event in events)
    assert set(found.values()) == {1}
    assert len(results) == each * writers
    answered = {note["mark"] for note in results if "doubt" not in note}
    assert answered <= set(found)
    # The server was back in time and knew the outcome of every commit.
    assert [note for note in results if "doubt" in note] == []
    assert len(found) == each * writers


def test_waiting_survives_a_restart(killable_server):
    with (
        Registry.open(killable_server.url(), create=True) as registry,
        Registry.open(killable_server.url()) as other,
    ):
        job = registry.register(agent="a", prompt="")
        follower = registry.subscribe(job.job_id, subscriber="s", timeout_sec=60)
        other.publish(job.job_id, "progress")
        assert next(follower).seq == 1
        killable_server.kill()
        killable_server.start()
        other.publish(job.job_id, "progress")
        assert next(follower).seq == 2
        other.complete(job.job_id)
        assert [event.event for event in follower] == ["completed"]


def test_a_server_that_stays_down_is_unavailable_within_the_time_limit(killable_server):
    with Registry.open(killable_server.url(), create=True, busy_timeout_sec=1.0) as registry:
        job = registry.register(agent="a", prompt="")
        killable_server.kill()
        for verb in (lambda: registry.get(job.job_id), lambda: registry.publish(job.job_id, "progress")):
            began = time.monotonic()
            with pytest.raises(Unavailable):
                verb()
            assert time.monotonic() - began < 20
        killable_server.start()
        assert registry.get(job.job_id) == job


@pytest.fixture
def proxied(postgres_server, url):
    """A registry whose connection can be cut, its proxy, and a direct one that shows what really happened."""
    Registry.open(url, create=True).close()
    with CommitProxy(postgres_server.port) as proxy:
        schema = url.partition("search_path%3D")[2]
        place = (
            f"postgresql://jobdb:{POSTGRES_PASSWORD}@127.0.0.1:{proxy.port}/postgres?options=-csearch_path%3D{schema}"
        )
        with Registry.open(place, busy_timeout_sec=3.0) as registry, Registry.open(url) as direct:
            yield registry, proxy, direct


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_whose_answer_is_lost_happens_once(proxied, moment):
    registry, proxy, direct = proxied
    job = registry.register(agent="a", prompt="", job_id="j")
    proxy.cut = moment
    event = registry.publish("j", "started")
    assert proxy.cuts == 1 and direct.events("j") == [event]
    proxy.cut = moment
    made = registry.register(agent="b", prompt="made once")
    assert proxy.cuts == 2 and direct.jobs(agent="b") == [made]
    proxy.cut = moment
    assert registry.accept(event.payload, subscriber="s").verdict == "accepted"
    proxy.cut = moment
    claim = registry.claim(worker="w", agent="b")
    assert claim.attempt == 1 and direct.get(made.job_id).attempt == 1
    proxy.cut = moment
    assert registry.get("j").last_seq == 1 and job.last_seq == 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_in_doubt_raises(proxied, moment):
    registry, proxy, direct = proxied
    registry.register(agent="a", prompt="", job_id="j")
    proxy.refuse_after_cut, proxy.cut = True, moment
    with pytest.raises(Unavailable, match="may or may not have been done"):
        registry.publish("j", "started")
    assert len(direct.events("j")) == (1 if moment == "after" else 0)


def test_secrets_are_not_in_the_errors_of_a_broken_connection(proxied):
    registry, proxy, _ = proxied
    registry.register(agent="a", prompt="", job_id="j")
    proxy.refuse_after_cut, proxy.cut = True, "before"
    with pytest.raises(Unavailable) as caught:
        registry.publish("j", "started")
    error = caught.value
    while error is not None:
        assert POSTGRES_PASSWORD not in str(error)
        error = error.__cause__ or error.__context__


def test_idle_connections_cut_by_a_restart_are_replaced(killable_server):
    with Registry.open(killable_server.url(), create=True) as registry:
        registry.register(agent="a", prompt="", job_id="j")
        threads = [threading.Thread(target=registry.get, args=("j",)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        killable_server.kill()
        killable_server.start()
        store = registry.engine.store
        assert store.query("SELECT job_id FROM v_jobs", limit=5, timeout_sec=5)[1] == [("j",)]
        with store.write() as tx:
            tx.run(JOBS.put_setting, name="x", value="y")
        assert store.data_version() and registry.engine.setting("x") == "y"


def test_a_standby_is_not_asked_for_the_outcome_of_a_commit(url):
    """It may lag behind: a commit that it does not know may have happened."""
    Registry.open(url, create=True).close()
    with psycopg.connect(url, autocommit=True) as connection:
        # Found before the server's own, by the search path below: it answers as on a standby.
        connection.execute("CREATE FUNCTION pg_is_in_recovery() RETURNS BOOLEAN LANGUAGE sql AS 'SELECT true'")
    with Registry.open(url + "%2Cpg_catalog", busy_timeout_sec=0.5) as registry:
        store = registry.engine.store
        with store._pool.connection() as connection, pytest.raises(Unavailable, match="may or may not have been done"):
            was_committed(store.address, connection, "3", busy_sec=0.5)


def test_listening_to_a_server_that_is_down_leaks_no_descriptors(killable_server):
    with Registry.open(killable_server.url(), create=True, busy_timeout_sec=0.2) as registry:
        registry.register(agent="a", prompt="", job_id="j")
        channel = "jobdb_test"
        killable_server.kill()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(Unavailable):
                listen(registry.engine.store.address, channel)
        assert len(os.listdir("/proc/self/fd")) <= before
        killable_server.start()
