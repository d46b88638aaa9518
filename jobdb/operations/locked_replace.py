"""The locked part of a restore: gives a prepared file the database's name while no process can have it open.

Called by ``restore``. Holds, in this order, the process's own exclusive claim on the file, the writers' gate, and
SQLite's exclusive lock; merges the old database's WAL into it, carries over what only the old database knows, and calls
``replace_database`` to exchange the names. The name always refers to either the old registry or the new one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import apsw

from ..engines.sqlite import open_files
from ..engines.sqlite.error_translation import translate
from ..engines.sqlite.exclusive_lock import lock_exclusively
from ..engines.sqlite.file_kind import connection_file_kind, refuse_foreign
from ..engines.sqlite.gate import Gate
from ..engines.sqlite.lock_holders import open_elsewhere_error
from ..engines.sqlite.shared_mark import SHARED
from ..engines.sqlite.stale_journals import nonempty_journals, refuse_if_removed_in_use, set_aside
from ..engines.sqlite.temporary_connection import immutable_uri
from ..errors import InvalidInput, StorageFailed
from ..filesystem.folder_sync import sync_folder
from ..filesystem.permissions import copy_owner
from ..filesystem.scratch_file import ScratchFile
from .replace_database import count_other_links, replace_database
from .restored_file import RESTORED_FILE, StatementCall, note_restore, write_changes
from .since_backup import ChangesSinceBackup, compare

_RETRY_SEC = 0.01


class CarriedOver(NamedTuple):
    """The data that the restored registry takes over from the database that it replaces.

    Attributes:
        since: the changes in that database that the backup does not have; None if unknown.
        revoked: True if the tokens that ``since`` counts were revoked in the restored registry too.
    """

    since: ChangesSinceBackup | None = None
    revoked: bool = False


class Replaced(NamedTuple):
    """The outcome of a replacement.

    Attributes:
        kept: the old database under its new name; None if there was none.
        set_aside: the -wal and -journal of a database that is gone or damaged, under their new names.
        carried_over: the data that the new registry takes over from the old one.
    """

    kept: Path | None
    set_aside: tuple[Path, ...]
    carried_over: CarriedOver


class _Locked(NamedTuple):
    """The old database, locked by an exclusive transaction that writes nothing."""

    connection: apsw.Connection
    carried_over: CarriedOver


def replace_under_lock(scratch: ScratchFile, target: Path, *, busy_sec: float, revoke_since: bool) -> Replaced:
    """Wait until no process has the database open, then give the prepared file its name.

    Args:
        scratch: the prepared file, in the same folder.
        target: the database, links resolved; it need not exist.
        busy_sec: how long to wait, in seconds.
        revoke_since: True to revoke in the new registry the tokens that were revoked in the old one since the backup.

    Raises:
        Busy: the database stays open in another process for longer than that.
        InvalidInput: the database has other names (hard links).
        NotAJobdbDatabase: it belongs to another program.
        StorageFailed: a file could not be renamed or written.
        Unusable: this process has the database open.
    """
    with open_files.exclusive_open(target):
        gate = Gate(target)
        try:
            gate.acquire(time.monotonic(), busy_sec)
            return _Replacement(scratch, target, busy_sec, revoke_since).run()
        except apsw.BusyError as error:
            raise open_elsewhere_error(target, busy_sec) from error
        except apsw.Error as error:
            raise translate(error, target, busy_sec) from error
        except OSError as error:
            raise StorageFailed(
                f"cannot put a registry in place at {target}: {error.strerror} ({error.filename}); the previous file "
                "is still there, or next to it. Check the folder and its disk, and try again"
            ) from error
        finally:
            gate.close()


@dataclass(frozen=True, slots=True)
class _Replacement:
    """The inputs of one replacement. The gate is held while its methods run."""

    scratch: ScratchFile
    target: Path
    busy_sec: float
    revoke_since: bool

    def run(self) -> Replaced:
        """Replace the file that has the name; retry if a database is created there meanwhile."""
        aside: tuple[Path, ...] = ()
        while True:
            try:
                found = os.lstat(self.target)
            except FileNotFoundError:
                refuse_if_removed_in_use(self.target, self.busy_sec)
                aside += set_aside(self.target)
                if self._take_free_name():
                    return Replaced(None, aside, CarriedOver())
                continue
            return self._replace(found, aside)

    def _take_free_name(self) -> bool:
        """Give the new file the name, which is free; return False if a database was just created there."""
        copy_owner(self.scratch.descriptor, os.stat(self.target.parent), mode=False)
        self.scratch.sync()
        try:
            self.scratch.publish_as(self.target)
        except FileExistsError:  # created by a program that does not know the gate
            return False
        sync_folder(self.target.parent)
        return True

    def _replace(self, found: os.stat_result, aside: tuple[Path, ...]) -> Replaced:
        target = self.target
        if found.st_nlink > 1 and count_other_links(target, found):
            raise InvalidInput(
                f"{target} has {found.st_nlink} names (hard links): a process that uses another name would keep using "
                f"the old database. Find them with 'find DIR -xdev -samefile {target}', remove them, and try again"
            )
        if found.st_size == 0 and nonempty_journals(target):
            refuse_if_removed_in_use(target, self.busy_sec)
            aside += set_aside(target)  # SQLite would delete them when it opens an empty file
        locked = self._lock()
        try:
            if locked is None:
                refuse_if_removed_in_use(target, self.busy_sec)
            copy_owner(self.scratch.descriptor, found, mode=True)
            self.scratch.sync()
            kept = replace_database(self.scratch, target)
        finally:
            if locked is not None:
                locked.connection.close()
        carried_over = locked.carried_over if locked is not None else CarriedOver()
        return Replaced(kept.database, aside + kept.journals, carried_over)

    def _lock(self) -> _Locked | None:
        """Merge the old database's WAL into it and lock it exclusively; return None if it is damaged.

        A damaged database is kept as it is, with its journals; it cannot be used.
        """
        deadline = time.monotonic() + self.busy_sec
        while True:
            try:
                self._merge_wal(deadline)
                locked = self._begin_exclusive(deadline)
            except (apsw.NotADBError, apsw.CorruptError):
                return None
            if locked is not None:
                return locked
            if time.monotonic() > deadline:
                raise apsw.BusyError("opened repeatedly")
            time.sleep(_RETRY_SEC)

    def _merge_wal(self, deadline: float) -> None:
        """Copy the WAL into the database while no other process has it open, and switch it to a rollback journal.

        Raises:
            apsw.CorruptError: it is damaged; nothing is copied.
        """
        connection = self._connect(deadline)
        try:
            lock_exclusively(connection)
            refuse_if_removed_in_use(self.target, self.busy_sec)
            refuse_foreign(self.target, connection_file_kind(connection))
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise apsw.CorruptError("quick_check")
            connection.pragma("journal_mode", "delete")
            # Releases the lock and removes the journal. close() would remove the journal by name, when the name already
            # belongs to another database's journal.
            connection.pragma("locking_mode", "NORMAL")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        finally:
            connection.close()

    def _begin_exclusive(self, deadline: float) -> _Locked | None:
        """Begin an exclusive transaction and carry over data under it; return None if another process came first."""
        connection = self._connect(deadline)
        try:
            connection.execute("ATTACH ? AS restored", (immutable_uri(self.scratch.path),))
            connection.execute("BEGIN EXCLUSIVE")
            if connection.pragma("journal_mode") != "delete" or nonempty_journals(self.target):
                connection.close()
                return None
            return _Locked(connection, self._carry_over(connection))
        except BaseException:
            connection.close()
            raise

    def _connect(self, deadline: float) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(str(self.target), flags=flags)
        connection.set_busy_timeout(max(1, round((deadline - time.monotonic()) * 1000)))
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # a damaged database stays as it is
        return connection

    def _carry_over(self, connection: apsw.Connection) -> CarriedOver:
        """Write to the new registry what only the old one knows: its mark and, if requested, the revocations."""
        changes: list[StatementCall] = []
        try:
            if connection.execute(RESTORED_FILE.is_marked_shared.text).fetchone() is not None:
                changes.append(StatementCall(RESTORED_FILE.put_restored_setting, (SHARED, "1")))
            since, tokens = compare(connection)
        except apsw.SQLError:
            return CarriedOver()  # it has no tables yet
        revoked = self.revoke_since and since is not None
        if revoked:
            now = time.time_ns() // 1_000_000
            changes += [
                StatementCall(RESTORED_FILE.revoke_restored_token, (token.job, token.kid, token.revoked_ms or now))
                for token in tokens
            ]
        if since is not None:
            changes.append(note_restore([] if revoked else [(token.job_id, token.kid) for token in tokens]))
        write_changes(self.scratch.path, changes)
        return CarriedOver(since, revoked)
