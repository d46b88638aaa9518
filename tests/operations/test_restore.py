"""Test that a restore puts exactly the backup in place and loses nothing of what it replaces."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import stat
from pathlib import Path

import apsw
import pytest

from jobdb import Busy, InvalidInput, JobdbError, NotAJobdbDatabase, Registry, StorageFailed
from jobdb.doctor import diagnose
from jobdb.engines.sqlite.stale_journals import nonempty_journals
from jobdb.operations.backup import back_up
from jobdb.operations.restore import restore_registry
from jobdb.operations.since_backup import changes_since
from jobdb.urls import DatabaseUrl, parse_url
from tests.support.database_holder import held_open
from tests.support.requirements import require_root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def database(folder: Path) -> Path:
    """A database with the job "late", which only its -wal has, and which the backup saved.db lacks."""
    path = folder / "db" / "jobs.db"
    with Registry.open(path, create=True) as registry:
        registry.register(agent="a", prompt="p", job_id="early")
        back_up(registry, folder / "saved.db")
    registry = Registry.open(path)
    registry.register(agent="a", prompt="p", job_id="late")
    registry.close(checkpoint=False)
    assert nonempty_journals(path)
    return path


def url_of(path: Path) -> DatabaseUrl:
    return parse_url(path)


def jobs_in(path: Path) -> list[str]:
    with Registry.open(path) as registry:
        return sorted(job.job_id for job in registry.jobs())


def setting(path: Path, name: str) -> str | None:
    connection = sqlite3.connect(path)
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    connection.close()
    return None if row is None else str(row[0])


# -- journals of what had the name before


def test_the_wal_of_a_removed_database_is_not_replayed(folder: Path, database: Path) -> None:
    log = Path(f"{database}-wal").read_bytes()
    database.unlink()
    done = restore_registry(folder / "saved.db", url_of(database))
    assert done.kept is None and [path.read_bytes() for path in done.set_aside] == [log]
    assert jobs_in(database) == ["early"]
    assert diagnose(url_of(database), full=True).ok


def hot_journal(database: Path) -> bytes:
    """Return the rollback journal of an open transaction."""
    connection = apsw.Connection(str(database))
    connection.pragma("journal_mode", "delete")
    connection.pragma("cache_size", 1)
    connection.execute("BEGIN IMMEDIATE; CREATE TABLE filler (x)")
    connection.executemany("INSERT INTO filler VALUES (?)", [("x" * 4000,)] * 50)
    connection.execute("UPDATE jobs SET detail = 'changed'")
    content = Path(f"{database}-journal").read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    return content


def test_the_journal_of_a_removed_database_is_not_rolled_back_into_it(folder: Path, database: Path) -> None:
    content = hot_journal(database)
    Path(f"{database}-journal").write_bytes(content)
    database.unlink()
    done = restore_registry(folder / "saved.db", url_of(database))
    assert [path.read_bytes() for path in done.set_aside] == [content]
    assert jobs_in(database) == ["early"]


def test_the_journal_of_an_unfinished_database_does_not_empty_the_restored_one(folder: Path, database: Path) -> None:
    """The journal says that the database had no page before."""
    content = bytearray(hot_journal(database))
    content[16:20] = bytes(4)
    database.unlink()
    Path(f"{database}-journal").write_bytes(content)
    done = restore_registry(folder / "saved.db", url_of(database))
    assert done.set_aside == () and jobs_in(database) == ["early"]
    Path(f"{folder / 'saved.db'}-journal").write_bytes(content)
    with pytest.raises(StorageFailed, match="not rolled back"):
        restore_registry(folder / "saved.db", url_of(database))


def test_a_database_created_during_the_restore_is_kept(
    folder: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is created by a program that does not use the gate."""
    from jobdb.operations import locked_replace

    Path(f"{database}-wal").unlink()
    database.unlink()
    whole = locked_replace.set_aside

    def make_one(path: Path) -> tuple[Path, ...]:
        shutil.copyfile(folder / "saved.db", path)
        return whole(path)

    monkeypatch.setattr(locked_replace, "set_aside", make_one)
    kept = restore_registry(folder / "saved.db", url_of(database)).kept
    assert kept is not None and jobs_in(kept) == jobs_in(database) == ["early"]


@pytest.mark.parametrize("empty", [False, True])
def test_creating_a_database_sets_the_wal_of_an_earlier_one_aside(folder: Path, database: Path, empty: bool) -> None:
    log = Path(f"{database}-wal").read_bytes()
    database.unlink()
    if empty:
        database.touch(mode=0o600)
    with pytest.warns(UserWarning, match="are kept as"), Registry.open(database, create=True) as registry:
        assert registry.jobs() == []
    assert [path.read_bytes() for path in database.parent.glob("jobs.db.replaced-*-wal")] == [log]


def test_an_empty_file_is_replaced_like_a_missing_one(folder: Path, database: Path) -> None:
    log = Path(f"{database}-wal").read_bytes()
    database.write_bytes(b"")
    done = restore_registry(folder / "saved.db", url_of(database))
    assert [path.read_bytes() for path in done.set_aside] == [log]
    assert jobs_in(database) == ["early"]


def test_a_damaged_database_is_kept_unchanged_with_its_wal(folder: Path, database: Path) -> None:
    damaged = bytearray(database.read_bytes())
    damaged[8192:-4096] = os.urandom(len(damaged) - 8192 - 4096)
    database.write_bytes(damaged)
    log = Path(f"{database}-wal").read_bytes()
    done = restore_registry(folder / "saved.db", url_of(database), revoke_since=True)
    assert done.kept is not None and done.kept.read_bytes() == damaged
    assert Path(f"{done.kept}-wal").read_bytes() == log and done.set_aside == (Path(f"{done.kept}-wal"),)
    assert done.since is None and not done.revoked
    assert jobs_in(database) == ["early"]


def test_the_kept_database_gets_a_name_without_a_wal_beside_it(folder: Path, database: Path) -> None:
    """Opening the kept database shows its content, whatever its name."""
    from jobdb.engines.sqlite import stale_journals

    stamp = stale_journals.utc_timestamp()
    for second in range(int(stamp[-3:-1]), min(60, int(stamp[-3:-1]) + 5)):
        shutil.copyfile(f"{database}-wal", f"{database}.replaced-{stamp[:-3]}{second:02d}Z-wal")
    kept = restore_registry(folder / "saved.db", url_of(database)).kept
    assert kept is not None and not Path(f"{kept}-wal").exists() and kept.name.endswith("-2")
    assert jobs_in(kept) == ["early", "late"]


@pytest.mark.parametrize("put_back", [False, True])
def test_restore_is_refused_while_a_process_uses_the_removed_database(
    folder: Path, database: Path, put_back: bool
) -> None:
    with held_open(database, close=False):
        database.unlink()
        if put_back:
            shutil.copyfile(folder / "saved.db", database)
        with pytest.raises(Busy):
            restore_registry(folder / "saved.db", url_of(database), busy_sec=0.2)
        if not put_back:
            with pytest.raises(Busy):
                Registry.open(database, create=True)
    assert Path(f"{database}-wal").stat().st_size > 0
    restore_registry(folder / "saved.db", url_of(database))
    assert jobs_in(database) == ["early"]


def test_an_opened_backup_is_restored_with_its_wal(folder: Path, database: Path) -> None:
    registry = Registry.open(folder / "saved.db")
    registry.register(agent="a", prompt="p", job_id="in_its_log")
    registry.close(checkpoint=False)
    before = {path.name: path.read_bytes() for path in folder.glob("saved.db*") if not path.name.endswith("-shm")}
    restore_registry(folder / "saved.db", url_of(database))
    assert jobs_in(database) == ["early", "in_its_log"]
    after = {path.name: path.read_bytes() for path in folder.glob("saved.db*") if not path.name.endswith("-shm")}
    assert after == before


def test_a_backup_with_an_open_transaction_is_refused(folder: Path, database: Path) -> None:
    journal = Path(f"{folder / 'saved.db'}-journal")
    journal.write_bytes(hot_journal(database))
    with pytest.raises(StorageFailed, match="not rolled back"):
        restore_registry(folder / "saved.db", url_of(database))
    assert jobs_in(database) == ["early", "late"]


@pytest.mark.parametrize("version", [-16777211, 0])
def test_a_backup_with_a_damaged_header_is_refused(folder: Path, database: Path, version: int) -> None:
    connection = sqlite3.connect(folder / "saved.db")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    with pytest.raises(StorageFailed, match=r"saved\.db is damaged \(schema version"):
        restore_registry(folder / "saved.db", url_of(database))
    assert jobs_in(database) == ["early", "late"]


def test_restoring_leaves_no_files_beside_the_backup(folder: Path, database: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    restore_registry(folder / "saved.db", url_of(database))
    assert sorted(path.name for path in folder.iterdir()) == before


# -- names


def test_two_restores_in_one_second_keep_both(folder: Path, database: Path) -> None:
    kept = [restore_registry(folder / "saved.db", url_of(database)).kept for _ in range(3)]
    assert len({*kept}) == 3 and kept[0] is not None
    assert jobs_in(kept[0]) == ["early", "late"]


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_is_followed(folder: Path, database: Path, relative: bool) -> None:
    link = folder / "jobs.db"
    link.symlink_to("db/jobs.db" if relative else database)
    kept = restore_registry(folder / "saved.db", url_of(link)).kept
    assert link.is_symlink() and jobs_in(database) == jobs_in(link) == ["early"]
    assert kept is not None and kept.parent == database.parent and not kept.is_symlink()


def test_the_target_of_a_dangling_link_is_created(folder: Path, database: Path) -> None:
    link = folder / "jobs.db"
    link.symlink_to("elsewhere/jobs.db")
    restore_registry(folder / "saved.db", url_of(link))
    assert link.is_symlink() and jobs_in(folder / "elsewhere" / "jobs.db") == ["early"]


def test_a_path_that_cannot_be_replaced_is_refused(folder: Path, database: Path) -> None:
    saved = folder / "saved.db"
    circle = folder / "circle"
    circle.symlink_to("circle")
    os.mkfifo(folder / "pipe")
    other = folder / "other.db"
    sqlite3.connect(other).executescript("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
    theirs = other.read_bytes()
    for place, words in ((circle, "circle"), (folder / "pipe", "not a file"), (folder, "a folder"), (saved, "itself")):
        with pytest.raises(InvalidInput, match=words):
            restore_registry(saved, url_of(place))
    with pytest.raises(NotAJobdbDatabase, match="another program"):
        restore_registry(saved, url_of(other))
    assert other.read_bytes() == theirs
    os.link(database, folder / "second")
    for backup, words in ((folder / "second", "itself"), (saved, "hard link")):
        with pytest.raises(InvalidInput, match=words):
            restore_registry(backup, url_of(database))
    (folder / "second").unlink()
    assert jobs_in(database) == ["early", "late"]
    assert not list(folder.rglob("*.restoring*")) and not list(folder.rglob("*.replaced*"))


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", "-gate"])
def test_a_journal_that_is_a_link_is_refused(folder: Path, database: Path, suffix: str) -> None:
    for other in ("-wal", "-shm", "-gate"):
        Path(f"{database}{other}").unlink(missing_ok=True)
    (folder / "victim").write_text("precious")
    Path(f"{database}{suffix}").symlink_to(folder / "victim")
    with pytest.raises(StorageFailed, match=rf"{suffix} is a symbolic link"):
        restore_registry(folder / "saved.db", url_of(database))
    assert (folder / "victim").read_text() == "precious" and Path(f"{database}{suffix}").is_symlink()


def test_a_backup_that_is_not_a_regular_file_is_refused(folder: Path, database: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("nowhere")
    for backup in (folder / "pipe", folder, folder / "dangling", folder / "missing", Path("/dev/null")):
        with pytest.raises(InvalidInput, match=r"name a file that back_up\(\) created"):
            restore_registry(backup, url_of(database))
    (folder / "link").symlink_to("saved.db")
    restore_registry(folder / "link", url_of(database))
    assert jobs_in(database) == ["early"]


def test_files_planted_under_the_names_of_earlier_versions_are_left_alone(folder: Path, database: Path) -> None:
    precious = folder / "precious"
    precious.write_text("precious")
    Path(f"{database}.restoring").symlink_to(precious)
    restore_registry(folder / "saved.db", url_of(database))
    assert precious.read_text() == "precious" and jobs_in(database) == ["early"]


def open_repeatedly(path: str, seen: multiprocessing.Queue, stop: multiprocessing.Event) -> None:  # type: ignore[valid-type]
    while not stop.is_set():
        try:
            with Registry.open(path, create=True, busy_timeout_sec=10) as registry:
                seen.put(sorted(job.job_id for job in registry.jobs()))
        except JobdbError as error:
            seen.put(type(error).__name__)
        stop.wait(0.005)


def test_a_program_that_creates_missing_databases_cannot_intervene(folder: Path, database: Path) -> None:
    context = multiprocessing.get_context("spawn")
    seen, stop = context.Queue(), context.Event()
    other = context.Process(target=open_repeatedly, args=(str(database), seen, stop))
    other.start()
    found = [seen.get(timeout=60)]
    try:
        done = 0
        while done < 3:
            try:
                restore_registry(folder / "saved.db", url_of(database), busy_sec=5)
                done += 1
            except Busy:
                continue
    finally:
        stop.set()
        while other.is_alive() or not seen.empty():
            while not seen.empty():
                found.append(seen.get(timeout=5))
            other.join(0.05)
    assert [] not in found
    assert {tuple(jobs) for jobs in found if isinstance(jobs, list)} <= {("early",), ("early", "late")}


# -- owner and mode


def test_owner_group_and_mode_of_the_replaced_file_are_kept(folder: Path, database: Path) -> None:
    require_root("giving a file to another user")
    os.chown(database.parent, 12345, 12345)
    for path in database.parent.iterdir():
        os.chown(path, 12345, 12346)
        path.chmod(0o640)
    Path(f"{database}-gate").unlink()
    restore_registry(folder / "saved.db", url_of(database))
    jobs_in(database)
    for path in database.parent.iterdir():
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 12346, 0o640), path


def test_files_created_by_root_belong_to_the_folders_owner(folder: Path, database: Path) -> None:
    require_root("giving a file to another user")
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12346)
    restore_registry(folder / "saved.db", url_of(home / "restored" / "jobs.db"))
    with Registry.open(home / "made" / "jobs.db", create=True) as registry:
        registry.register(agent="a", prompt="p")
        back_up(registry, home / "saved.db")
        back_up(registry, home / "backups" / "saved.db", keep=1)
        made = {path: path.stat() for path in home.rglob("*")}
    assert len(made) >= 10
    for path, found in made.items():
        assert (found.st_uid, found.st_gid) == (12345, 12346), path
        assert not stat.S_IMODE(found.st_mode) & 0o077, path


# -- what the backup does not know


@pytest.mark.parametrize("asked", [False, True])
def test_tokens_revoked_since_the_backup_are_counted_and_revoked_again(folder: Path, asked: bool) -> None:
    path, saved = folder / "jobs.db", folder / "saved.db"
    with Registry.open(path, create=True) as registry:
        for job in ("revoked", "rotated", "untouched", "before", "pruned"):
            registry.register(agent="a", prompt="p", job_id=job)
        registry.tokens.rotate("before", overlap_sec=3600)
        registry.tokens.revoke("before", 1)
        back_up(registry, saved)
        registry.tokens.rotate("revoked", overlap_sec=3600)
        registry.tokens.revoke("revoked", 1)
        registry.tokens.rotate("rotated", overlap_sec=3600)
        registry.publish("untouched", "started")
        registry.cancel("pruned")
        registry.prune(older_than_sec=0, now_ms=registry.engine.store.clock() + 1)
    expected = changes_since(saved, url_of(path))
    done = restore_registry(saved, url_of(path), revoke_since=asked)
    assert done.since == expected and done.since is not None and done.revoked is asked
    assert done.since.as_dict() == {"tokens": 2, "jobs": 2, "jobs_gone": 1, "subscriptions": 0}
    with Registry.open(path) as registry:
        states = {
            job: [token.state for token in registry.tokens.list(job)] for job in ("revoked", "rotated", "untouched")
        }
        assert states == {
            "revoked": ["revoked" if asked else "current"],
            "rotated": ["revoked" if asked else "current"],
            "untouched": ["current"],
        }
        assert registry.tokens.rotate("revoked") == 2  # so that such a job can continue


def test_subscribers_ahead_of_the_backup_are_counted(folder: Path, database: Path) -> None:
    with Registry.open(database) as registry:
        wire = registry.publish("early", "started").payload
        registry.accept(wire, subscriber="s")
        back_up(registry, folder / "newer.db")
        registry.accept(registry.publish("early", "progress").payload, subscriber="s")
    done = restore_registry(folder / "newer.db", url_of(database))
    assert done.since is not None and done.since.subscriptions == 1


def test_revocations_of_another_registry_are_not_applied(folder: Path, database: Path) -> None:
    """So it is if a service created an empty database after the loss of the old one: nothing is revoked for that."""
    with Registry.open(folder / "other.db", create=True) as registry:
        registry.register(agent="a", prompt="p", job_id="another")
    done = restore_registry(folder / "saved.db", url_of(folder / "other.db"), revoke_since=True)
    assert done.since is None and not done.revoked


def test_a_restored_registry_is_another_one(folder: Path, database: Path) -> None:
    with Registry.open(database) as registry:
        registry.engine.put_setting("identity", "what brokers know it by")
        registry.engine.put_setting("registry_id", "0" * 32)
        registry.engine.put_setting("place", json.dumps({"path": str(database)}))
        registry.engine.acquire_lease("relay", holder="h", lease_ms=3_600_000)
        back_up(registry, folder / "newer.db")
    ids = set()
    for number in range(2):
        other = folder / f"other{number}.db"
        restore_registry(folder / "newer.db", url_of(other))
        ids.add(setting(other, "registry_id"))
        assert setting(other, "identity") is None and setting(other, "place") is None
        with Registry.open(other) as registry:
            assert registry.engine.acquire_lease("relay", holder="another", lease_ms=1)
    assert len(ids) == 2 and all(id is not None and len(id) == 32 for id in ids) and "0" * 32 not in ids
    done = restore_registry(folder / "newer.db", url_of(database), same_registry=True)
    assert done.same_registry and setting(database, "registry_id") == "0" * 32
    assert setting(database, "identity") == "what brokers know it by" and setting(database, "place") is None


def test_the_shared_mark_is_kept(folder: Path, database: Path) -> None:
    from jobdb.engines.sqlite.shared_mark import set_shared

    set_shared(database, True)
    restore_registry(folder / "saved.db", url_of(database))
    assert setting(database, "shared") == "1"
