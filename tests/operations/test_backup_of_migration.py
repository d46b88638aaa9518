"""Test the copy that migrate keeps: complete, under a unique name, in the folder of a link's target."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest
from jobdb.schema import SCHEMA_VERSION

from jobdb import Registry, StorageFailed
from jobdb.engines.sqlite import migrations
from jobdb.engines.sqlite.migrations import migrate
from jobdb.operations.backup_file import verify
from jobdb.operations.restore import restore_registry
from jobdb.urls import parse_url
from tests.support.old_schema import create_at_version
from tests.support.requirements import require_root


def make_old_database(path: Path) -> None:
    create_at_version(path, 1, statements=[f"INSERT INTO settings VALUES ('mark', '{path.name}')"])


@pytest.fixture
def old_database(tmp_path: Path) -> Path:
    """A database of the first schema version."""
    path = tmp_path / "db" / "jobs.db"
    make_old_database(path)
    return path


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return int(found)


def test_two_copies_in_one_second_have_names_of_their_own(old_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobdb.engines.sqlite import stale_journals

    monkeypatch.setattr(stale_journals, "utc_timestamp", lambda: "20260619T093200Z")
    Path(f"{old_database}.v1-20260619T093200Z.bak-wal").write_bytes(b"of a copy that was removed")
    kept = []
    for _ in range(2):
        kept.append(migrate(old_database))
        old_database.unlink()
        make_old_database(old_database)
    assert [path.name for path in kept if path] == [
        "jobs.db.v1-20260619T093200Z-2.bak",
        "jobs.db.v1-20260619T093200Z-3.bak",
    ]
    assert all(path is not None and version(path) == 1 for path in kept)


def test_a_link_is_followed_and_the_copy_can_be_restored(tmp_path: Path, old_database: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to("db/jobs.db")
    kept = migrate(link)
    assert kept is not None and kept.parent == old_database.parent and link.is_symlink()
    assert version(old_database) == SCHEMA_VERSION
    assert verify(kept) == (0, 0) and not list(kept.parent.glob("*.bak-*"))
    restore_registry(kept, parse_url(link))
    assert version(old_database) == 1
    migrate(link)
    with Registry.open(link) as registry:
        registry.register(agent="a", prompt="p")


def test_the_copy_has_the_databases_owner_and_mode(old_database: Path) -> None:
    require_root("giving a file to another user")
    os.chown(old_database, 12345, 12346)
    kept = migrate(old_database)
    assert kept is not None
    found = kept.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 12346, 0o600)


def test_a_failed_copy_leaves_no_file_that_looks_complete(old_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_scratch: object) -> None:
        raise StorageFailed("the disk did not confirm it")

    monkeypatch.setattr(migrations.ScratchFile, "sync", fail)
    with pytest.raises(StorageFailed):
        migrate(old_database)
    assert [path.name for path in old_database.parent.iterdir()] == ["jobs.db"] and version(old_database) == 1
