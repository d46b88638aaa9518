"""The opening of a SQLite registry: the file, its folder's file system, its schema, then the store.

Called by ``engines/open.py``; calls the checks in this package, then the store. All refusals happen here, before
anything is written.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import apsw

from jobdb.schema import SCHEMA_VERSION

from ...errors import DatabaseMissing, SchemaMismatch, StorageFailed, UnsafeFileSystem
from ...filesystem.mode_report import check_modes
from ...filesystem.permissions import create_private_file, make_private_folder
from ...filesystem.unsafe_files import refuse_hard_links, refuse_unsafe_companions
from ...system.descriptor_shortage import SHORTAGE_ADVICE, is_shortage
from ..sql.statements import JOBS, VERBS
from . import open_files
from .error_translation import translate
from .file_kind import FileKind, empty_error, inspect_file, refuse_foreign, unmarked_error
from .header import Header, read_header, refuse_newer
from .placement_check import check_placement
from .store import CHECKPOINT_PAGES, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ...filesystem.placement import Placement

SHARED_BUSY_SEC = 10.0


def open_store(
    path: Path,
    *,
    create: bool,
    durability: str,
    busy_sec: float,
    clock: Callable[[], int],
    checkpoint_pages: int = CHECKPOINT_PAGES,
) -> SqliteStore:
    """Open the database file; create it first if it is missing and ``create`` is set.

    Args:
        path: the database file.
        create: create it if it is missing or empty.
        durability: "full" or "normal".
        busy_sec: how long a writer waits for its turn, in seconds; on a shared folder at least ten.
        clock: Unix time in milliseconds.
        checkpoint_pages: WAL length, in pages, from which checkpoints are run.

    Raises:
        DatabaseMissing, NotAJobdbDatabase, SchemaMismatch, UnsafeFileSystem, StorageFailed: it cannot be used.
        Busy: another process held it exclusively for too long.
        ForkedRegistry: this process must not open it.
    """

    def open_with(path: Path, journal: str, placement: Placement) -> SqliteStore:
        return SqliteStore(
            path,
            journal=journal,
            durability=durability,
            busy_sec=max(busy_sec, SHARED_BUSY_SEC) if journal == "delete" else busy_sec,
            clock=clock,
            checkpoint_pages=checkpoint_pages,
            placement=placement,
        )

    try:
        return _open_store(path, create, open_with)
    except StorageFailed as error:
        if isinstance(error.__cause__, OSError) and is_shortage(error.__cause__):
            raise _shortage_on_open(path, error.__cause__) from error
        raise
    except OSError as error:
        if is_shortage(error):
            raise _shortage_on_open(path, error) from error
        raise StorageFailed(
            f"cannot open {error.filename or path}: {error.strerror}; check the disk, and owner and mode of the folder "
            "and the files"
        ) from error
    except apsw.Error as error:
        raise translate(error, path, 0.0) from error


def _shortage_on_open(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"cannot open {error.filename or path}: {error.strerror}. {SHORTAGE_ADVICE}")


def _open_store(path: Path, create: bool, open_with: Callable[[Path, str, Placement], SqliteStore]) -> SqliteStore:
    path = path.resolve()  # SQLite keeps the journal beside the file that a link leads to
    missing = not path.exists()
    if missing and not create:
        raise DatabaseMissing(
            f"there is no database at {path}",
            advice="create one with Registry.open(..., create=True)",
            command=f"create one with 'jobdb --db {path} init'",
        )
    placement = check_placement(path)
    refuse_unsafe_companions(path)
    if missing:
        _create_database(path)
    header = _checked_header(path, create=create)
    if header is not None and header.wal and placement.journal != "wal":
        raise UnsafeFileSystem(
            f"{path} is in WAL mode and its folder is on {placement.fs_type}, where WAL loses data "
            f"({placement.reason}). On the host that owns the disk run 'jobdb --db {path} init --shared', which puts "
            "it into a rollback journal; or keep the file there and let the other hosts use MQTT"
        )
    for warning in check_modes(path):
        from ...system.caller_warnings import warn_caller  # imported here: mostly there is nothing to warn about

        warn_caller(warning)
    for statements in VERBS:
        statements.load()
    journal = placement.journal or "delete"
    if journal == "wal" and (header is None or not header.wal):
        from .shared_mark import is_shared  # a database in WAL mode, the common case, bears no mark

        if is_shared(path):
            journal = "delete"
    store = open_with(path, journal, placement)
    try:
        if journal == "wal" and (header is None or not header.wal) and _is_marked(store):
            # The mark was set between our check and the change to WAL: change back before anything is written.
            store.close()
            store = open_with(path, "delete", placement)
        _note_placement(store, placement)
    except BaseException:
        store.close()
        raise
    return store


def _note_placement(store: SqliteStore, placement: Placement) -> None:
    """Mark a database on a shared folder as shared, and record an override."""
    if placement.journal == "wal":
        return
    from .shared_mark import SHARED

    if _is_marked(store) and not placement.refused:
        return
    with store.write() as tx:
        tx.run(JOBS.put_setting, name=SHARED, value="1")
        if placement.refused:
            tx.run(JOBS.put_setting, name="unsafe_override", value=placement.reason)


def _is_marked(store: SqliteStore) -> bool:
    from .shared_mark import SHARED

    with store.read() as tx:
        return tx.one(JOBS.get_setting, name=SHARED) == ("1",)


def _create_database(path: Path) -> None:
    from ..trust import record_trust
    from .migrations import migrate, remove_unfinished
    from .stale_journals import set_aside_stale

    folders = make_private_folder(path.parent)
    set_aside_stale(path, SHARED_BUSY_SEC)
    created = create_private_file(path)
    try:
        migrate(path, backup=False)
        record_trust(path)
    except BaseException:
        # For instance on a full disk. Files that existed before stay, even an empty one.
        if created and remove_unfinished(path):
            for folder in folders:
                with contextlib.suppress(OSError):  # somebody else uses it already
                    os.rmdir(folder)
        raise


def _roll_back_hot_journal(path: Path) -> None:
    """Have SQLite roll back the hot journal of a process that died, for instance during a migration.

    Until then the header in the file is that of a transaction that was never committed.
    """
    try:
        if os.stat(f"{path}-journal").st_size == 0 or os.stat(path).st_size == 0:
            return  # opening an empty file, SQLite would delete the journals of an earlier database of this name
    except FileNotFoundError:
        return
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(round(SHARED_BUSY_SEC * 1000))
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    finally:
        connection.close()


def _checked_header(path: Path, *, create: bool) -> Header | None:
    """Check the file's kind and version; return its header, or None if this process already has it open."""
    refuse_hard_links(path)
    with open_files.raw_read(path) as free:
        if not free:
            return None
        _roll_back_hot_journal(path)
        header, found = inspect_file(path)
    refuse_foreign(path, found)
    if found is FileKind.UNMARKED:
        raise unmarked_error(path)
    if found is FileKind.EMPTY:
        if not create:
            raise empty_error(path)
        _create_database(path)
        return read_header(path)
    if header.user_version < SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{path} has schema version {header.user_version} and this jobdb needs {SCHEMA_VERSION}; "
            f"run 'jobdb --db {path} migrate' (it keeps a backup)"
        )
    refuse_newer(path, header)
    return header
