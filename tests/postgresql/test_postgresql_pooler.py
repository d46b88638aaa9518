"""Test PgBouncer in transaction mode, where one session serves many clients: none sees what another left."""

import itertools
import threading
from collections.abc import Iterator
from functools import partial

import psycopg
import pytest

from jobdb import Registry
from jobdb.engines.postgresql.listener import Listener, Poller
from tests.support.postgresql.pgbouncer import PgBouncer
from tests.support.postgresql.server import POSTGRES_PASSWORD, PostgresServer
from tests.support.requirements import require_pgbouncer
from tests.support.threads import run_in_threads

_databases = itertools.count(1)
_SETTINGS = (
    *("synchronous_commit", "lock_timeout", "idle_in_transaction_session_timeout", "jit"),
    *("statement_timeout", "search_path", "role", "default_transaction_read_only"),
)


def start_pgbouncer(server: PostgresServer, *, sessions: int) -> PgBouncer:
    return PgBouncer(require_pgbouncer(), server, sessions=sessions)


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of an empty database: PgBouncer passes no search path on."""
    name = f"pooled_{next(_databases)}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    Registry.open(postgres_server.url(name), create=True).close()
    yield name
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def pooler(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    running = start_pgbouncer(postgres_server, sessions=2)
    try:
        yield running
    finally:
        running.stop()


def settings(url: str) -> dict[str, str]:
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        rows = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(_SETTINGS)]
        ).fetchall()
    return dict(rows)


def run_in_session(url: str, script: str) -> None:
    """Run statements as another client of the pooler, which leaves its state in the session."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(script.encode())


@pytest.mark.parametrize("socket", [False, True], ids=["tcp", "socket"])
def test_no_client_gets_the_result_of_another_clients_statement(
    pooler: PgBouncer, database: str, postgres_server: PostgresServer, socket: bool
) -> None:
    url = pooler.url(database, socket=socket)
    with Registry.open(postgres_server.url(database)) as direct:
        for _ in range(7):
            direct.register(agent="a", prompt="p")
    with Registry.open(url) as one, Registry.open(url) as other:
        for _ in range(8):
            assert one.engine.outbox_size() == (0, None)
        # A third client keeps the one session for its transaction: the others are given the second one.
        with psycopg.connect(url, prepare_threshold=None) as holder:
            holder.execute("SELECT 1")
            for _ in range(8):
                assert sum(other.engine.count_by_status().values()) == 7
            assert one.engine.outbox_size() == (0, None)
        assert sum(one.engine.count_by_status().values()) == 7


def test_many_concurrent_clients_get_correct_results(pooler: PgBouncer, database: str) -> None:
    def run_client(number: int) -> None:
        with Registry.open(pooler.url(database), durability=("full", "normal")[number % 2]) as registry:
            job = registry.register(agent=f"a{number}", prompt=f"p{number}")
            claim = registry.claim(agent=f"a{number}", worker="w")
            assert claim is not None and claim.job_id == job.job_id
            for seq in range(1, 13):
                event = registry.publish(job.job_id, "progress", attempt=claim.attempt, detail=f"{number}.{seq}")
                assert event.seq == seq
                assert registry.accept(event.payload, subscriber="s").verdict == "accepted"
                assert registry.get(job.job_id).prompt == f"p{number}"
                assert registry.events(job.job_id, after=seq - 1)[0].detail == f"{number}.{seq}"

    assert run_in_threads(partial(run_client, number) for number in range(5)) == []


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_registry_leaves_nothing_in_the_session_of_the_server(
    postgres_server: PostgresServer, database: str, durability: str
) -> None:
    pooler = start_pgbouncer(postgres_server, sessions=1)
    try:
        url = pooler.url(database)
        before = settings(url)
        registry = Registry.open(url, durability=durability)
        job = registry.register(agent="a", prompt="p")
        for _ in range(8):
            registry.publish(job.job_id, "progress")
        registry.engine.store.query("SELECT count(*) FROM v_jobs", limit=5, timeout_sec=5)
        registry.engine.store.data_version()
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            assert settings(url) == before
            assert connection.execute("SELECT name FROM pg_prepared_statements").fetchall() == []
            assert connection.execute("SELECT pg_listening_channels()").fetchall() == []
            held = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"
            assert connection.execute(held).fetchone() == (0,)
            views = "SELECT count(*) FROM pg_class WHERE relname = 'jobdb_query'"
            assert connection.execute(views).fetchone() == (0,)
        registry.close()
        assert settings(url) == before
    finally:
        pooler.stop()


def test_session_state_left_by_others_changes_nothing(postgres_server: PostgresServer, database: str) -> None:
    pooler = start_pgbouncer(postgres_server, sessions=1)
    try:
        url = pooler.url(database)
        with Registry.open(url) as registry:
            job = registry.register(agent="a", prompt="p")
            run_in_session(
                url,
                "CREATE SCHEMA elsewhere; SET search_path = elsewhere; SET synchronous_commit = off; "
                "SET statement_timeout = '1ms'; SET default_transaction_read_only = on; SET role = pg_monitor",
            )
            with registry.engine.store.write() as tx:
                shown = {}
                for name in ("synchronous_commit", "search_path", "statement_timeout", "transaction_read_only", "role"):
                    shown[name] = tx._cursor.execute(f"SHOW {name}".encode()).fetchone()[0]  # type: ignore[attr-defined]
            assert shown == {
                "synchronous_commit": "on",
                "search_path": '"$user", public, pg_temp',
                "statement_timeout": "0",
                "transaction_read_only": "off",
                "role": "none",
            }
            assert registry.publish(job.job_id, "progress").seq == 1
            assert registry.get(job.job_id).last_seq == 1
            run_in_session(url, "RESET ALL; RESET ROLE")
            run_in_session(
                url, "CREATE TEMPORARY TABLE jobs AS SELECT 1 AS id; CREATE TEMPORARY TABLE events (seq INT)"
            )
            assert registry.publish(job.job_id, "progress").seq == 2
            assert [event.seq for event in registry.events(job.job_id)] == [1, 2]
            columns, rows = registry.engine.store.query("SELECT last_seq FROM v_jobs", limit=5, timeout_sec=5)
            assert (columns, rows) == (["last_seq"], [(2,)])
    finally:
        pooler.stop()


@pytest.mark.parametrize("poison", ["a registry that was closed", "a normal registry", "another program"])
def test_acknowledged_writes_survive_a_crash_of_the_server(killable_server: PostgresServer, poison: str) -> None:
    with psycopg.connect(killable_server.url(), autocommit=True) as connection:
        # Otherwise the server's own writer would sync in time what no client waited for.
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
    Registry.open(killable_server.url(), create=True).close()
    pooler = start_pgbouncer(killable_server, sessions=1)
    try:
        url = pooler.url()
        registry = Registry.open(url)
        job = registry.register(agent="a", prompt="p")
        claim = registry.claim(worker="w", job_id=job.job_id)
        assert claim is not None
        if poison == "another program":
            run_in_session(url, "SET synchronous_commit = off")
        else:
            other = Registry.open(url, durability="normal" if "normal" in poison else "full")
            other.get(job.job_id)
            other.close()
        acknowledged = 0
        for _ in range(40):
            acknowledged = registry.publish(job.job_id, "progress", attempt=claim.attempt).seq
        killable_server.kill()
        killable_server.start()
        with Registry.open(killable_server.url()) as after:
            assert after.get(job.job_id).last_seq == acknowledged
    finally:
        pooler.stop()


def test_waiters_behind_a_pooler_poll(pooler: PgBouncer, database: str, postgres_server: PostgresServer) -> None:
    with Registry.open(pooler.url(database)) as registry:
        job = registry.register(agent="a", prompt="p")

        def complete() -> None:
            with Registry.open(postgres_server.url(database)) as direct:
                direct.publish(job.job_id, "completed")

        registry.engine.store.data_version()
        assert isinstance(registry.engine.store._listener, Poller)
        later = threading.Timer(0.3, complete)
        later.start()
        assert registry.wait(job.job_id, timeout_sec=30).status == "completed"
        later.join()


@pytest.mark.parametrize("way", ["socket", "tcp"])
def test_a_direct_connection_prepares_statements_under_names_of_its_own(
    postgres_server: PostgresServer, database: str, way: str
) -> None:
    url = postgres_server.url(database)
    if way == "tcp":
        url = f"postgresql://jobdb:{POSTGRES_PASSWORD}@127.0.0.1:{postgres_server.port}/{database}"
    names = []
    for _ in range(2):
        with Registry.open(url) as registry:
            job = registry.register(agent="a", prompt="p")
            for _ in range(8):
                registry.get(job.job_id)
            with registry.engine.store._pool.connection() as connection:
                assert connection.session.direct
                found = connection.execute("SELECT name FROM pg_prepared_statements").fetchall()
                assert found
                names.append({name for (name,) in found})
            registry.engine.store.data_version()
            assert isinstance(registry.engine.store._listener, Listener)
    assert names[0].isdisjoint(names[1])


def test_dropped_prepared_statements_are_replaced_by_unprepared_ones(
    postgres_server: PostgresServer, database: str
) -> None:
    """A pooler that is not recognized as one, or `DEALLOCATE ALL` by a client that shares the session."""
    with Registry.open(postgres_server.url(database)) as registry:
        job = registry.register(agent="a", prompt="p")
        for _ in range(8):
            registry.publish(job.job_id, "progress")
        with registry.engine.store._pool.connection() as connection:
            connection.pgconn.exec_(b"DEALLOCATE ALL")  # bypasses psycopg, which would notice it
        assert registry.publish(job.job_id, "progress").seq == 9
        assert registry.get(job.job_id).last_seq == 9
        with registry.engine.store._pool.connection() as connection:
            assert connection.prepare_threshold is None
