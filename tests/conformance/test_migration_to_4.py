"""Test the migration of a version 3 database with jobs: refused with the command, migrated with a backup, unchanged."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing

import pytest

from jobdb import InvalidInput, JobStatus, Registry, SchemaMismatch, Verdict
from jobdb.engines.identity import broker_identity, read_identity, require_place
from jobdb.engines.sql.sealer import token_binding
from tests.support.keys import TOKEN, vault
from tests.support.old_schema import create_old_database
from tests.support.wire_events import signed

ENGINES = ("sqlite", "postgresql")
NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
OLD_TOKEN = TOKEN
NEW_TOKEN = OLD_TOKEN[::-1]
_schemas = itertools.count(1)


def rows():
    """Yield the rows of version 3: a leased job with a rotated token, a completed one, and an unsigned one."""
    job = "INSERT INTO jobs (id, job_id, status, agent, topic_prefix, timeout_sec, idle_timeout_sec, kid, last_seq, "
    job += "terminal_seq, attempt, worker, lease_until_ms, created_ms, updated_ms, started_ms, finished_ms) VALUES "
    lease = NOW_MS + HOUR_MS
    yield job + f"(1,'leased','running','a','t/1',0,0,2,0,NULL,1,'w',{lease},{NOW_MS},{NOW_MS + 5},{NOW_MS},NULL)"
    yield job + f"(2,'done','completed','a','t/2',0,0,1,1,1,0,NULL,NULL,{NOW_MS},{NOW_MS},{NOW_MS},{NOW_MS})"
    yield job + f"(3,'open','cancelled','a','t/3',0,0,0,0,0,0,NULL,NULL,{NOW_MS},{NOW_MS},NULL,{NOW_MS})"
    for number in (1, 2, 3):
        yield f"INSERT INTO specs (job, prompt) VALUES ({number}, 'p')"
    for number, name, kid, token in (
        (1, "leased", 1, OLD_TOKEN),
        (1, "leased", 2, NEW_TOKEN),
        (2, "done", 1, OLD_TOKEN),
    ):
        sealed = vault().seal(token, bound_to=token_binding(name, kid)).hex()
        expires = f"{NOW_MS + HOUR_MS}" if (name, kid) == ("leased", 1) else "NULL"
        yield (
            "INSERT INTO tokens (job, kid, sealed, created_ms, expires_ms) "
            f"VALUES ({number}, {kid}, X'{sealed}', {NOW_MS}, {expires})"
        )
    yield f"INSERT INTO settings (name, value) VALUES ('key_id', '{vault().key_id}')"
    yield "INSERT INTO settings (name, value) VALUES ('identity', '0123456789abcdef')"
    yield f"INSERT INTO leases (name, holder, until_ms) VALUES ('relay', 'h', {NOW_MS + 9 * 366 * 24 * HOUR_MS})"


def create_version_3_database(engine, tmp_path, request, monkeypatch):
    """Create the database; return its URL and a function that migrates it."""
    return create_old_database(engine, 3, tmp_path, request, monkeypatch, statements=rows())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_migrated_database_of_version_3_keeps_its_meaning(engine, tmp_path, request, monkeypatch):
    url, migrate = create_version_3_database(engine, tmp_path, request, monkeypatch)
    with pytest.raises(SchemaMismatch, match="migrate"):
        Registry.open(url)
    kept = migrate()
    if engine == "sqlite":
        with closing(sqlite3.connect(kept)) as backup:
            assert backup.execute("PRAGMA user_version").fetchone() == (3,)
            assert backup.execute("SELECT count(*) FROM jobs").fetchone() == (3,)
    assert not migrate()

    with Registry.open(url, vault=vault(), clock=lambda: NOW_MS + 10) as registry:
        store = registry.engine.store
        identity = read_identity(store)
        assert identity.problem is None and identity.recorded == identity.current != {}
        # The session that the broker keeps under the old client id is still used.
        assert require_place(store) == broker_identity(store) == "0123456789abcdef" != identity.registry_id
        with store.read() as tx:
            now = tx.now_ms
        leased = registry.get("leased")
        assert (leased.status, leased.worker, leased.attempt) == (JobStatus.RUNNING, "w", 1)
        if engine == "sqlite":  # the server has its own clock
            assert registry.reap() == []
            assert [token.state for token in registry.tokens.list("leased")] == ["overlap", "current"]
            assert registry.accept(signed("leased", 1, token=OLD_TOKEN), subscriber="s").verdict is Verdict.ACCEPTED
            assert registry.engine.acquire_lease("relay", holder="mine", lease_ms=1000), now
        assert registry.renew("leased", attempt=1, lease_sec=60).attempt == 1
        assert registry.tokens.show("leased") == NEW_TOKEN
        registry.publish("leased", "progress", attempt=1)
        # The tokens from before are not recorded: jobs that reuse their ids are signed, with generated tokens.
        assert sorted(registry.prune(older_than_sec=0, now_ms=2**42)) == ["done", "open"]
        for job_id, more in (
            ("done", {"auth_token": OLD_TOKEN}),
            ("open", {"auth": "never"}),
            ("done", {"auth": "never"}),
        ):
            with pytest.raises(InvalidInput, match="pruned"):
                registry.register(agent="a", prompt="p", job_id=job_id, **more)
        for job_id in ("done", "open"):
            registry.register(agent="a", prompt="p", job_id=job_id)


def test_a_restored_backup_of_version_3_is_another_registry(tmp_path, request, monkeypatch):
    """The restore has assigned a new id already; the old client id at brokers stays with the original."""
    url, migrate = create_version_3_database("sqlite", tmp_path, request, monkeypatch)
    with closing(sqlite3.connect(url, isolation_level=None)) as connection:
        connection.execute("INSERT INTO settings (name, value) VALUES ('registry_id', ?)", ("ab" * 16,))
    migrate()
    with Registry.open(url, vault=vault()) as registry:
        assert broker_identity(registry.engine.store) == "ab" * 16


def test_two_migrated_databases_have_two_ids(tmp_path, request, monkeypatch):
    found = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        url, migrate = create_version_3_database("sqlite", tmp_path / name, request, monkeypatch)
        migrate()
        with Registry.open(url, vault=vault()) as registry:
            found.add(read_identity(registry.engine.store).registry_id)
    assert len(found) == 2


def test_tables_restored_from_a_dump_are_in_another_place(make_database, postgres_server):
    """A copy on the same server, from a template; with pg_dump the tables get other numbers as well."""
    import psycopg

    from jobdb import MovedOrCopied

    name = f"copied_{next(_schemas)}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}_original".encode())
        original = postgres_server.url().replace("/postgres?", f"/{name}_original?")
        with Registry.open(original, create=True, vault=vault()) as registry:
            before = require_place(registry.engine.store)
            assert read_identity(registry.engine.store).recorded["cluster"]
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {name}_original".encode())
    with Registry.open(original.replace(f"{name}_original", name), vault=vault()) as copy:
        with pytest.raises(MovedOrCopied, match="another database"):
            require_place(copy.engine.store)
        from jobdb.engines.identity import assign_new_identity

        assert assign_new_identity(copy.engine.store).registry_id != before
        require_place(copy.engine.store)
    with Registry.open(original, vault=vault()) as registry:
        assert require_place(registry.engine.store) == before
