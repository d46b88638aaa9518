"""Test databases of other programs, and registries that lost their mark: one rule for every command."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from jobdb.schema import APPLICATION_ID, SCHEMA_VERSION

from jobdb import NotAJobdbDatabase, SchemaMismatch
from jobdb.doctor import diagnose
from jobdb.engines.sqlite.file_kind import FileKind, inspect_file
from jobdb.engines.sqlite.header import read_header
from jobdb.engines.sqlite.migrations import migrate
from jobdb.engines.sqlite.shared_mark import set_shared
from jobdb.mqtt.ticket_store import open_ticket_store
from jobdb.operations.backup import back_up
from jobdb.operations.restore import restore_registry
from jobdb.urls import parse_url
from tests.support.registries import open_registry

COMMANDS: dict[str, Callable[[Path], object]] = {
    "open": open_registry,
    "init": lambda path: open_registry(path, create=True),
    "init --shared": lambda path: set_shared(path, True),
    "init --no-shared": lambda path: set_shared(path, False),
    "migrate": migrate,
}
FOREIGN = {
    "a table": "CREATE TABLE orders(x); INSERT INTO orders VALUES (1)",
    "a view": "CREATE VIEW today AS SELECT 1",
    "names like ours": "CREATE TABLE jobs(id); CREATE TABLE events(id); CREATE TABLE settings(name, value)",
    "steps of another set": "CREATE TABLE _sqlite_migrations(migration_set, name); CREATE TABLE jobs(id)",
    "steps of another shape": "CREATE TABLE _sqlite_migrations(x); CREATE TABLE jobs(id)",
    "our version": f"CREATE TABLE orders(x); PRAGMA user_version = {SCHEMA_VERSION}",
    "our version and nothing": f"PRAGMA user_version = {SCHEMA_VERSION}",
    "an older version": "CREATE TABLE orders(x); PRAGMA user_version = 1",
    "another mark": "PRAGMA application_id = 7",
    "in WAL": "PRAGMA journal_mode = wal; CREATE TABLE orders(x)",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir(mode=0o700)
    return tmp_path / "private" / "shop.db"


def make(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(script)
    path.chmod(0o600)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", FOREIGN)
def test_another_programs_database_is_refused_by_every_command_and_left_unchanged(path: Path, kind: str) -> None:
    make(path, FOREIGN[kind])
    before = digest(path), sorted(os.listdir(path.parent))
    for command in COMMANDS.values():
        with pytest.raises(NotAJobdbDatabase, match="is a SQLite database of another program; nothing was changed"):
            command(path)
    with pytest.raises((NotAJobdbDatabase, SchemaMismatch), match=r"is a database of another program|newer jobdb"):
        open_ticket_store(path, lambda: 0)
    report = diagnose(parse_url(path))
    assert [finding.message for finding in report.findings if finding.level == "fail"] == [
        f"{path} is a SQLite database of another program"
    ]
    assert (digest(path), sorted(os.listdir(path.parent))) == before


def test_one_command_restores_the_mark_of_a_registry_loaded_from_a_dump(path: Path) -> None:
    original = path.with_name("original.db")
    with open_registry(original, create=True) as registry:
        job = registry.register(agent="a", prompt="p")
        registry.publish(job.job_id, "progress")
    with closing(sqlite3.connect(original)) as connection:
        dump = "\n".join(connection.iterdump())
    make(path, dump)
    assert inspect_file(path)[1] is FileKind.UNMARKED
    for name in ("open", "init", "init --shared", "init --no-shared"):
        with pytest.raises(SchemaMismatch, match=r"whose mark is missing.*jobdb --db .* migrate'"):
            COMMANDS[name](path)
    [failed] = [finding for finding in diagnose(parse_url(path)).findings if finding.level == "fail"]
    assert failed.fix_command is not None and failed.fix_command.endswith("migrate")
    kept = migrate(path)
    assert kept is not None and kept.exists()
    header = read_header(path)
    assert (header.application_id, header.user_version) == (APPLICATION_ID, SCHEMA_VERSION)
    with open_registry(path) as registry:
        assert registry.get(job.job_id).last_seq == 1
        assert registry.publish(job.job_id, "progress").seq == 2
        assert registry.register(agent="a", prompt="p").job_id != job.job_id


def test_a_dump_with_foreign_objects_is_refused(path: Path) -> None:
    original = path.with_name("original.db")
    open_registry(original, create=True).close()
    with closing(sqlite3.connect(original)) as connection:
        make(path, "\n".join(connection.iterdump()))
    make(path, "CREATE TABLE orders(x)")
    for command in COMMANDS.values():
        with pytest.raises(NotAJobdbDatabase):
            command(path)


def test_an_empty_database_becomes_a_registry(path: Path) -> None:
    make(path, "CREATE TABLE gone(x); DROP TABLE gone; VACUUM")
    with pytest.raises(SchemaMismatch, match=r"is empty; open it with create=True"):
        open_registry(path)
    with open_registry(path, create=True) as registry:
        assert registry.jobs() == []


def test_a_registry_with_an_additional_table_is_a_registry(path: Path) -> None:
    open_registry(path, create=True).close()
    make(path, "CREATE TABLE notes(x)")
    with open_registry(path) as registry:
        assert registry.jobs() == []


def test_a_mark_that_is_only_in_the_wal_is_found(path: Path) -> None:
    """The process that put it back was killed before its commit was copied from the -wal into the file."""
    original = path.with_name("original.db")
    with open_registry(original, create=True) as registry:
        job = registry.register(agent="a", prompt="p")
    make(original, "PRAGMA application_id = 0")
    connection = apsw.Connection(str(original))
    try:
        connection.pragma("application_id", APPLICATION_ID)
        for suffix in ("", "-wal"):
            shutil.copy(f"{original}{suffix}", f"{path}{suffix}")
    finally:
        connection.close()
    assert read_header(path).application_id == 0
    assert [finding.level for finding in diagnose(parse_url(path)).findings if finding.check == "schema"] == ["ok"]
    with open_registry(path) as registry:
        assert registry.get(job.job_id).job_id == job.job_id


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_restore_does_not_replace_another_programs_database(path: Path, kind: str) -> None:
    saved = path.with_name("saved.db")
    with open_registry(path.with_name("original.db"), create=True) as registry:
        back_up(registry, saved)
    make(path, FOREIGN[kind])
    before = digest(path)
    with pytest.raises(NotAJobdbDatabase, match="is a SQLite database of another program; nothing was changed"):
        restore_registry(saved, parse_url(str(path)))
    assert digest(path) == before


@pytest.mark.parametrize("mark", [True, False])
def test_a_restore_replaces_a_registry_with_and_without_its_mark(path: Path, mark: bool) -> None:
    saved = path.with_name("saved.db")
    with open_registry(path, create=True) as registry:
        registry.register(agent="a", prompt="p", job_id="saved")
        back_up(registry, saved)
        registry.register(agent="a", prompt="p", job_id="later")
    if not mark:
        make(path, "PRAGMA application_id = 0")
    restore_registry(saved, parse_url(str(path)))
    with open_registry(path) as registry:
        assert [job.job_id for job in registry.jobs()] == ["saved"]
