"""Test opening, migrating and refusing PostgreSQL databases."""

import os
import subprocess
import sys

import psycopg
import pytest
from jobdb.schema import SCHEMA_VERSION, migration_files

from jobdb import DatabaseMissing, InvalidInput, Registry, SchemaMismatch, Unavailable
from jobdb.engines.postgresql.connections import Address
from jobdb.engines.postgresql.migrations import migrate_postgresql
from jobdb.errors import ForkedRegistry, StorageFailed
from tests.support.postgresql.server import POSTGRES_PASSWORD
from tests.support.threads import run_in_threads


def test_the_same_migrations_as_on_sqlite():
    names = [(number, name) for number, name, _ in migration_files("sqlite")]
    assert names == [(number, name) for number, name, _ in migration_files("postgresql")]


def test_create_creates_the_tables_once(url):
    with pytest.raises(DatabaseMissing, match="init"):
        Registry.open(url)
    with Registry.open(url, create=True) as registry:
        job = registry.register(agent="a", prompt="p")
    with Registry.open(url, create=True) as registry:
        assert registry.get(job.job_id) == job
    assert migrate_postgresql(url) == []


def test_concurrent_migrations_run_once(url):
    results = []
    assert run_in_threads([lambda: results.append(migrate_postgresql(url))] * 5) == []
    assert sorted(results)[-1] == list(range(1, SCHEMA_VERSION + 1)) and sorted(results)[:-1] == [[]] * 4


def test_older_and_newer_schemas_are_refused(url):
    migrate_postgresql(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO jobdb_migrations (number, name) VALUES (999, 'later')")
        with pytest.raises(SchemaMismatch, match="upgrade"):
            Registry.open(url)
        with pytest.raises(SchemaMismatch, match="upgrade"):
            migrate_postgresql(url)
        connection.execute("DELETE FROM jobdb_migrations WHERE number > 1")
        with pytest.raises(SchemaMismatch, match="migrate"):
            Registry.open(url, create=True)


def test_a_migration_that_fails_leaves_nothing(url):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE outbox (mine INTEGER)")
        with pytest.raises(SchemaMismatch, match="outbox"):
            migrate_postgresql(url)
        tables = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename <> 'outbox'"
        ).fetchone()
    assert tables == (0,)


def test_passwords_from_the_url_or_the_environment_are_not_shown(postgres_server, url, monkeypatch):
    schema = url.partition("search_path%3D")[2]
    place = f"127.0.0.1:{postgres_server.port}/postgres?options=-csearch_path%3D{schema}"
    with Registry.open(f"postgresql://jobdb:{POSTGRES_PASSWORD}@{place}", create=True) as registry:
        assert POSTGRES_PASSWORD not in repr(registry) + str(registry.url) + registry.engine.store.describe()
        assert POSTGRES_PASSWORD not in repr(registry.engine.store.address)
    with Registry.open(f"postgresql://jobdb@{place}&password={POSTGRES_PASSWORD}") as registry:
        assert POSTGRES_PASSWORD not in repr(registry) + registry.engine.store.describe()
    monkeypatch.setenv("PGPASSWORD", POSTGRES_PASSWORD)
    Registry.open(f"postgresql://jobdb@{place}").close()
    monkeypatch.delenv("PGPASSWORD")
    wrong = "wrong-5e0c"
    with pytest.raises(Unavailable) as caught:
        Registry.open(f"postgresql://jobdb:{wrong}@{place}")
    assert wrong not in str(caught.value) and "password authentication failed" in str(caught.value)


def test_an_unreachable_server_is_unavailable(postgres_server, tmp_path):
    with pytest.raises(Unavailable, match=r"[a-z]\. Check host"):
        Registry.open(f"postgresql://jobdb@/postgres?host={tmp_path}")
    with pytest.raises(DatabaseMissing, match="createdb"):
        Registry.open(postgres_server.url("nowhere"))


def test_a_url_that_libpq_cannot_read_shows_no_password():
    for url in ("postgresql://u:se:cret@h:x/n", "postgresql://u:secret@h:70000000/n", "postgresql://h/n?secret=1"):
        with pytest.raises((InvalidInput, Unavailable)) as caught:
            Registry.open(url)
        chain = [caught.value, caught.value.__cause__]
        assert not any("cret@" in str(error) or "secret@" in str(error) for error in chain)


def test_without_the_driver_the_error_says_what_to_install():
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "import jobdb\n"
        "try: jobdb.Registry.open('postgresql://h/n')\n"
        "except jobdb.Unavailable as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "pip install 'jobdb[postgresql]'" in shown.stdout, shown.stderr


def test_a_role_without_privileges_is_told_which_it_needs(postgres_server, url):
    migrate_postgresql(url)
    schema = url.partition("search_path%3D")[2]
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        for role in ("worker_role", "stranger_role"):
            connection.execute(f"DROP ROLE IF EXISTS {role}")
            connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            connection.execute(f"GRANT SELECT ON {schema}.jobdb_migrations TO {role}")
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO worker_role")
        connection.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO worker_role")
    try:
        with Registry.open(url.replace("jobdb@", "worker_role@")) as registry:
            job = registry.register(agent="a", prompt="")
            registry.claim(worker="w")
            registry.publish(job.job_id, "completed", attempt=1)
            assert next(registry.subscribe(subscriber="s", timeout_sec=30)).seq == 1
        with Registry.open(url.replace("jobdb@", "stranger_role@")) as registry:
            with pytest.raises(StorageFailed, match="grant"):
                registry.jobs()
            with pytest.raises(StorageFailed, match="grant"):
                registry.register(agent="a", prompt="")
    finally:
        with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
            connection.execute("DROP OWNED BY worker_role, stranger_role")
            connection.execute("DROP ROLE worker_role, stranger_role")


def test_a_read_only_server_is_reported(url):
    migrate_postgresql(url)
    with Registry.open(url) as registry:
        registry.register(agent="a", prompt="")
    with Registry.open(url.replace("options=", "options=-cdefault_transaction_read_only%3Don%20")) as registry:
        assert len(registry.jobs()) == 1


def test_durability_is_set_in_each_transaction(url):
    def setting(registry):
        with registry.engine.store.write() as tx:
            return tx._connection.execute("SHOW synchronous_commit").fetchone()

    migrate_postgresql(url)
    for durability, expected in (("full", "on"), ("normal", "off")):
        with Registry.open(url, durability=durability) as registry:
            assert setting(registry) == (expected,)
    asked = url.replace("options=", "options=-csynchronous_commit%3Doff%20")
    with Registry.open(asked) as registry:
        assert setting(registry) == ("on",)


def test_a_forked_child_is_refused_and_its_parent_continues(url):
    with Registry.open(url, create=True) as registry:
        job = registry.register(agent="a", prompt="")
        registry.engine.store.data_version()
        child = os.fork()
        if not child:
            try:
                registry.get(job.job_id)
            except ForkedRegistry:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert registry.get(job.job_id) == job
        registry.publish(job.job_id, "progress")


def test_a_silent_server_times_out_unless_the_url_overrides_it():
    found = Address("postgresql://h/db", "h").parameters()
    assert found["tcp_user_timeout"] == 30_000 and found["keepalives_idle"] == 10
    assert Address("postgresql://h/db?tcp_user_timeout=5", "h").parameters()["tcp_user_timeout"] == "5"
