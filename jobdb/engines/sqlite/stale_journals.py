"""Stale journals: those beside a database that belong to an earlier database with the same name.

SQLite cannot tell a -wal or a -journal from that of another database: it applies the one it finds to the file with that
name, or deletes it if the file is empty. So the journals are set aside before another database gets the name. Called by
restore and wherever a database is created. Source: https://sqlite.org/howtocorrupt.html, sections 1.4 and 2.5
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import Busy, StorageFailed
from ...filesystem.atomic_files import rename_noreplace
from ...filesystem.file_names import is_free, numbered_names, utc_timestamp
from ...filesystem.folder_sync import sync_folder
from ...filesystem.permissions import JOURNAL_SUFFIXES
from ...system.caller_warnings import warn_caller
from .gate import Gate
from .lock_holders import shm_lock_holder

if TYPE_CHECKING:
    from collections.abc import Iterator

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def nonempty_journals(database: Path) -> list[Path]:
    """Return the journals beside a database that hold data: a -wal, or a -journal that SQLite would roll back.

    The journal of a database that was being created does not count: it restores an empty file.
    """
    found = []
    journal, wal = Path(f"{database}-journal"), Path(f"{database}-wal")
    if journal_page_count(journal):
        found.append(journal)
    try:
        if os.lstat(wal).st_size > 0:
            found.append(wal)
    except FileNotFoundError:
        pass
    return found


def journal_page_count(journal: Path) -> int | None:
    """Return the number of pages of the database that a rollback journal would restore; None if it holds none.

    A journal that cannot be read counts as one that holds data.

    Source: https://sqlite.org/fileformat2.html#the_rollback_journal
    """
    try:
        if not stat.S_ISREG(os.lstat(journal).st_mode):
            return None
        with journal.open("rb") as file:
            head = file.read(20)
    except FileNotFoundError:
        return None
    except OSError:
        return 1
    return int.from_bytes(head[16:20], "big") if head.startswith(_JOURNAL_MAGIC) else None


def free_names(database: Path, word: str, suffix: str = "") -> Iterator[Path]:
    """Yield names beside a database, from a word and the current time, that no file and no journal has."""
    for name in numbered_names(f"{database.name}.{word}-{utc_timestamp()}", suffix):
        if is_free(database.with_name(name)):
            yield database.with_name(name)


def set_aside(database: Path) -> tuple[Path, ...]:
    """Rename the journals of a database that is gone, so that none is applied to the next one with its name.

    The caller holds the gate. The -wal is renamed last: once it is gone, the others are gone too.

    Returns:
        Their new names, durable; empty if there was nothing to keep. Journals without data are removed: the journal of
        a database that was never finished would empty the next one.

    Raises:
        StorageFailed: they cannot be renamed.
    """
    holding = nonempty_journals(database)
    moved = []
    try:
        if holding:
            kept = next(free_names(database, "replaced"))
            for suffix in JOURNAL_SUFFIXES:
                if os.path.lexists(f"{database}{suffix}"):
                    rename_noreplace(Path(f"{database}{suffix}"), Path(f"{kept}{suffix}"))
                    moved.append(Path(f"{kept}{suffix}"))
        else:
            for suffix in JOURNAL_SUFFIXES:
                Path(f"{database}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"cannot set aside the journals of a removed database beside {database}: {error.strerror}. Move "
            f"{database}-wal and {database}-journal to another folder yourself, and try again"
        ) from error
    sync_folder(database.parent)
    return tuple(path for path in moved if not path.name.endswith("-shm"))


def set_aside_stale(database: Path, busy_sec: float) -> None:
    """Set aside the journals of an earlier database, with a warning, before one is created in an empty or missing file.

    SQLite would delete them. A -wal beside an empty file is never in use: a database is finished before it gets one. So
    the gate is acquired only where there is one.

    Args:
        database: the file, with symbolic links resolved.
        busy_sec: how long to wait for another process that is doing the same, in seconds.

    Raises:
        Busy, StorageFailed: they could not be set aside.
    """
    if not _is_empty(database) or not nonempty_journals(database):
        return
    gate = Gate(database)
    try:
        gate.acquire(time.monotonic(), busy_sec)
        if not _is_empty(database) or not nonempty_journals(database):
            return
        refuse_if_removed_in_use(database, busy_sec)
        kept = set_aside(database)
    finally:
        gate.close()
    warn_caller(
        f"beside {database} were the journals of an earlier database, with commits that were not yet in its file; they "
        f"are kept as {' and '.join(map(str, kept))}. If you still have that database, put them beside it again"
    )


def refuse_if_removed_in_use(database: Path, waited_sec: float) -> None:
    """Refuse while a process still has a database open that had this name and was removed or moved away.

    Raises:
        Busy: a process still has it open.
    """
    holder = shm_lock_holder(database)
    if holder is not None:
        raise Busy(
            f"process {holder} still has a database open that was removed from {database} or replaced there; "
            "stop the workers, the relay and the subscribers, and try again. Nothing was changed",
            waited_sec=waited_sec,
            holder=f"pid {holder}",
        )


def _is_empty(database: Path) -> bool:
    try:
        return os.stat(database).st_size == 0
    except FileNotFoundError:
        return True
