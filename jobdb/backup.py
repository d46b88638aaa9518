"""Saving a SQLite registry while it is in use, and putting a saved one back.

Called by ``jobdb backup`` and ``jobdb restore``. A backup is one file that holds everything committed before it began:
it is made with SQLite's backup API, verified, synced, and only then given its name.
Source: https://sqlite.org/backup.html. On PostgreSQL use pg_dump or its archiving; the message says so.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import apsw

from jobdb.schema import APPLICATION_ID, VERSION

from .engines.sqlite import opened
from .engines.sqlite.failures import translate
from .engines.sqlite.gate import Gate
from .engines.sqlite.header import read_header
from .errors import AlreadyExists, Busy, InvalidInput, NotAJobdbDatabase, SchemaMismatch, StorageFailed
from .filemodes import create_private, secure_folder, sync_folder
from .registry import Registry
from .urls import DatabaseUrl

_PAGES_A_STEP = 2000


@dataclass(frozen=True, slots=True)
class Backup:
    """A verified backup: where it is, how large, and what is in it."""

    path: Path
    size_bytes: int
    jobs: int
    events: int
    removed: tuple[Path, ...] = ()

    def as_dict(self) -> dict[str, object]:
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "jobs": self.jobs,
            "events": self.events,
            "removed": [str(path) for path in self.removed],
        }


def back_up(registry: Registry, target: Path, *, keep: int | None = None) -> Backup:
    """Saves the whole registry into one file, beside its writers.

    Args:
        registry: the open registry.
        target: the new file; with ``keep`` the moment is put into its name (``jobs-20260619T093200Z.db``).
        keep: how many backups of that name to keep; older ones are removed after the new one was verified.

    Raises:
        InvalidInput: the registry is not in SQLite.
        AlreadyExists: the file is there already.
        StorageFailed: the disk is full or failed, or the copy did not verify; no file of that name is left.
    """
    source = _sqlite_path(registry.url)
    target = target.absolute()
    if keep is not None:
        target = target.with_name(f"{target.stem}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}{target.suffix}")
    if target.exists():
        raise AlreadyExists(f"{target} is there already; name another file, or use --keep to number them by time")
    secure_folder(target.parent)
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    create_private(partial)
    try:
        registry.engine.store.sync()
        _copy(source, partial)
        jobs, events = verify(partial)
        _sync(partial)
        os.link(partial, target)
    except FileExistsError:
        raise AlreadyExists(f"{target} was made by another process meanwhile; name another file") from None
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(target.parent)
    removed = _remove_old(target, keep) if keep is not None else ()
    return Backup(target, target.stat().st_size, jobs, events, removed)


def verify(path: Path) -> tuple[int, int]:
    """Opens a saved registry and checks it from end to end; returns how many jobs and events it holds.

    Raises:
        NotAJobdbDatabase, SchemaMismatch: it is something else or of another version.
        StorageFailed: it is damaged.
    """
    header = read_header(path)
    if header.empty or header.application_id != APPLICATION_ID:
        raise NotAJobdbDatabase(f"{path} is no backup of a jobdb database")
    if header.user_version > VERSION:
        raise SchemaMismatch(f"{path} has schema version {header.user_version}; this jobdb knows {VERSION}")
    try:
        connection = apsw.Connection(f"file:{_uri(path)}?immutable=1", flags=_READ_URI)
        try:
            problems = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
            broken = connection.execute("PRAGMA foreign_key_check").fetchone()
            jobs = connection.execute("SELECT count(*) FROM jobs").fetchone()
            events = connection.execute("SELECT count(*) FROM events").fetchone()
        finally:
            connection.close()
    except apsw.CorruptError as error:
        raise StorageFailed(f"{path} is damaged ({error}); use another backup") from error
    except apsw.Error as error:
        raise translate(error, path, 0.0) from error
    if problems != ["ok"] or broken is not None:
        raise StorageFailed(f"{path} is damaged ({problems[0]}); use another backup")
    assert jobs is not None and events is not None
    return int(jobs[0]), int(events[0])


def restore(backup: Path, url: DatabaseUrl, *, busy_sec: float = 5.0) -> Path | None:
    """Puts a saved registry in the place of the present one, which is kept under another name.

    Args:
        backup: the saved file; it stays.
        url: where the registry is to be.
        busy_sec: how long to wait until nobody has the present one open, in seconds.

    Returns:
        Where the present database was kept; None when there was none.

    Raises:
        Busy: the present database is open in a process.
        NotAJobdbDatabase, StorageFailed, SchemaMismatch: the backup is not sound.
    """
    target = _sqlite_path(url).absolute()
    verify(backup)
    secure_folder(target.parent)
    fresh = target.with_name(target.name + ".restoring")
    fresh.unlink(missing_ok=True)
    create_private(fresh)
    _copy(backup, fresh)
    _sync(fresh)
    kept = None
    if target.exists():
        kept = target.with_name(f"{target.name}.replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        _set_aside(target, kept, busy_sec)
    os.rename(fresh, target)
    sync_folder(target.parent)
    return kept


_READ_URI = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


def _sqlite_path(url: DatabaseUrl) -> Path:
    if url.path is None:
        raise InvalidInput(
            "backup and restore are for SQLite; save a PostgreSQL registry with pg_dump or its own archiving, or "
            "copy it into a file: jobdb copy"
        )
    return url.path


def _uri(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


def _copy(source: Path, target: Path) -> None:
    """SQLite's backup API, in steps so that writers of a rollback journal get their turn; restarts by itself."""
    identity = opened.add(source)
    try:
        from_connection = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            from_connection.set_busy_timeout(30_000)
            to_connection = apsw.Connection(str(target))
            try:
                # One read transaction: the copy is one moment's state, whatever is written meanwhile.
                from_connection.execute("BEGIN; SELECT count(*) FROM sqlite_schema").fetchall()
                with to_connection.backup("main", from_connection, "main") as copying:
                    while not copying.done:
                        copying.step(_PAGES_A_STEP)
                from_connection.execute("COMMIT")
                to_connection.pragma("journal_mode", "delete")
            finally:
                to_connection.close()
        finally:
            from_connection.close()
    except apsw.Error as error:
        raise translate(error, source, 30.0) from error
    finally:
        opened.remove(identity)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _set_aside(target: Path, kept: Path, busy_sec: float) -> None:
    """Renames the present database, once nobody has it open; its WAL is merged into it first."""
    with opened.standard_library_may_open(target):
        gate = Gate(target)
        try:
            gate.enter(time.monotonic(), busy_sec)
            connection = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                connection.set_busy_timeout(round(busy_sec * 1000))
                connection.pragma("locking_mode", "EXCLUSIVE")
                connection.execute("BEGIN EXCLUSIVE; COMMIT")
                connection.pragma("journal_mode", "delete")
                os.rename(target, kept)
            except apsw.BusyError as error:
                raise Busy(
                    f"{target} is open in another process; stop the workers, the relay and the subscribers, and try "
                    "again. Nothing was changed",
                    waited_sec=busy_sec,
                ) from error
            except (apsw.NotADBError, apsw.CorruptError):
                # What is damaged cannot be locked; it is kept as it is, with its WAL.
                os.rename(target, kept)
                for suffix in ("-wal", "-shm"):
                    if os.path.exists(f"{target}{suffix}"):
                        os.rename(f"{target}{suffix}", f"{kept}{suffix}")
            finally:
                connection.close()
        finally:
            gate.close()


def _remove_old(newest: Path, keep: int) -> tuple[Path, ...]:
    if keep < 1:
        raise InvalidInput(f"keep is {keep}; it may be 1 or more")
    stem = newest.stem.rpartition("-")[0]
    found = sorted(newest.parent.glob(f"{stem}-[0-9]*T[0-9]*Z{newest.suffix}"))
    doomed = tuple(path for path in found[:-keep] if path != newest)
    for path in doomed:
        path.unlink()
    return doomed
