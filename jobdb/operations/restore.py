"""Putting a saved SQLite registry in the place of the present one.

Called by ``jobdb restore``. The backup is copied, checked and made ready under a scratch name; then the database's name
changes hands in one step, under the gate and SQLite's exclusive lock. At every moment the name stands for the old or
the new registry, never for a mixture: the -wal and -journal of the old one leave before it does.
"""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from ..engines.identity import REGISTRY_ID, new_registry_id
from ..engines.sqlite import open_files
from ..engines.sqlite.error_translation import translate
from ..engines.sqlite.exclusive_lock import lock_exclusively
from ..engines.sqlite.file_kind import connection_file_kind, refuse_foreign
from ..engines.sqlite.gate import Gate
from ..engines.sqlite.lock_holders import open_elsewhere_error
from ..engines.sqlite.placement_check import check_placement
from ..engines.sqlite.shared_mark import SHARED
from ..engines.sqlite.stale_journals import nonempty_journals, refuse_if_removed_in_use, set_aside
from ..engines.sqlite.temporary_connection import immutable_uri, temporary_connection
from ..engines.statements import Statement, StatementSet
from ..errors import InvalidInput, StorageFailed
from ..filesystem.folder_sync import sync_folder
from ..filesystem.permissions import copy_owner, make_private_folder
from ..filesystem.scratch_file import ScratchFile
from ..urls import DatabaseUrl
from .backup_file import copy_backup_file, open_scratch, resolve_backup, verify
from .replace_database import count_other_links, refuse_strange_journals, replace_database


class RestoreStatements(StatementSet):
    """The statements of ``restore.sql``."""

    revoked_since: Statement
    common_jobs: Statement
    subscriptions_ahead: Statement
    revoke_restored_token: Statement
    put_restored_setting: Statement
    delete_restored_place: Statement
    delete_restored_leases: Statement
    delete_broker_identities: Statement
    is_marked_shared: Statement
    restored_key_id: Statement


RESTORE = RestoreStatements(Path(__file__).with_name("restore.sql"))


StatementCall = tuple[Statement, tuple[int | str, ...]]
"""A statement's name and its values."""

RESTORE_NOTE = "restored"
_MOST_NOTED = 100
_RETRY_SEC = 0.01


@dataclass(frozen=True, slots=True)
class ChangesSinceBackup:
    """What the replaced database knew that the backup does not.

    Attributes:
        tokens: how many tokens were revoked, or replaced by a rotation, since the backup was made.
        jobs: of how many jobs.
        jobs_gone: how many jobs of the backup are in it no more; whether their tokens were revoked is not known.
        subscriptions: how many subscribers of single jobs have accepted events since.
    """

    tokens: int
    jobs: int
    jobs_gone: int
    subscriptions: int

    def as_dict(self) -> dict[str, int]:
        """JSON-ready, under stable names."""
        return {
            "tokens": self.tokens,
            "jobs": self.jobs,
            "jobs_gone": self.jobs_gone,
            "subscriptions": self.subscriptions,
        }


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore has done.

    Attributes:
        path: the database, links followed.
        jobs, events: how many it holds.
        kept: the database that was replaced, under its new name; None when there was none.
        set_aside: the -wal and -journal of a database that is gone or damaged, under their new names.
        since: what the replaced database knew and the backup does not; None when that cannot be known.
        revoked: whether the tokens that ``since`` counts were revoked in the restored registry too.
        same_registry: whether brokers and tickets take it for the registry that the backup was made of.
        key_id: the id of the master key that its secrets are sealed under; None when it has none.
    """

    path: Path
    jobs: int
    events: int
    kept: Path | None
    set_aside: tuple[Path, ...]
    since: ChangesSinceBackup | None
    revoked: bool
    same_registry: bool
    key_id: str | None


def restore(backup: Path, url: DatabaseUrl, *, busy_sec: float = 5.0) -> Path | None:
    """Put a saved registry in the place of the present one, which is kept under another name.

    See `restore_registry`, which says more about what was done.

    Returns:
        Where the present database was kept; None when there was none.
    """
    return restore_registry(backup, url, busy_sec=busy_sec).kept


def restore_registry(
    backup: Path,
    url: DatabaseUrl,
    *,
    busy_sec: float = 5.0,
    revoke_since: bool = False,
    same_registry: bool = False,
) -> RestoreReport:
    """Put a saved registry in the place of the present one, which is kept under another name.

    Args:
        backup: the saved file; it stays.
        url: where the registry is to be; a link is followed.
        busy_sec: how long to wait until nobody has the present one open, in seconds.
        revoke_since: revoke what was revoked or rotated away in the present one since the backup was made; without
            it those tokens are valid again.
        same_registry: keep the backup's registry id, so that brokers' sessions and tickets go on. Only where the
            registry that the backup was made of is gone for good: two that have one id take each other's messages.

    Raises:
        Busy: the present database is open in a process.
        InvalidInput: the backup is no file, is the database itself, or the database has other names.
        NotAJobdbDatabase, StorageFailed, SchemaMismatch: the backup is not sound, or what stands at the place is a
            database of another program.
        StorageFailed: beside the database lies a link, a folder or somebody else's file by the name of its journal.
        UnsafeFileSystem: the folder's file system cannot hold a database safely.
        Unusable: this process has the present one open.
    """
    source = resolve_backup(backup)
    target = _checked_target(url, source, backup)
    check_placement(target)
    if target.exists():
        refuse_strange_journals(target)
    make_private_folder(target.parent)
    with ScratchFile(target, "restoring") as scratch:
        copy_backup_file(source, scratch.path)
        jobs, events = verify(scratch.path, named=backup)
        changes: list[StatementCall] = [
            (RESTORE.delete_restored_place, ()),
            (RESTORE.delete_restored_leases, ()),
            _restore_note(None),
        ]
        if not same_registry:
            changes += [
                (RESTORE.delete_broker_identities, ()),
                (RESTORE.put_restored_setting, (REGISTRY_ID, new_registry_id())),
            ]
        _write(scratch.path, changes)
        key_id = _master_key_id(scratch.path)
        swap = _Replacement(scratch, target, busy_sec, revoke_since=revoke_since)
        swap.run()
    return RestoreReport(
        target, jobs, events, swap.kept, swap.set_aside, swap.since, swap.revoked, same_registry, key_id
    )


def changes_since(backup: Path, url: DatabaseUrl) -> ChangesSinceBackup | None:
    """Compare the present database with a backup that is to replace it.

    Returns:
        What the present one knows that the backup does not; None when that cannot be known: it is missing, damaged, in
        use for longer than a moment, or has no job in common with the backup.
    """
    source = resolve_backup(backup)
    target = Path(os.path.realpath(sqlite_path(url)))
    if nonempty_journals(source) or not target.is_file() or target.stat().st_size == 0:
        return None
    try:
        with temporary_connection(
            target, busy_sec=1.0, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        ) as connection:
            connection.execute("ATTACH ? AS restored", (immutable_uri(source),))
            return _compare(connection)[0]
    except apsw.Error:
        return None


def sqlite_path(url: DatabaseUrl) -> Path:
    """Return the file of a SQLite registry.

    Raises:
        InvalidInput: the registry is in PostgreSQL.
    """
    if url.path is None:
        raise InvalidInput(
            "backup and restore are for SQLite; save a PostgreSQL registry with pg_dump or its own archiving, or "
            "copy it into a file: jobdb copy"
        )
    return url.path


def _checked_target(url: DatabaseUrl, source: Path, backup: Path) -> Path:
    """Return the file that is to be replaced or made, at the end of whatever links lead to it."""
    given = sqlite_path(url)
    try:
        os.fsencode(given).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{str(given)!r} is not valid UTF-8, which SQLite needs; name another file") from None
    target = Path(os.path.realpath(given))
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return target
    except OSError as error:
        raise InvalidInput(f"{given} cannot be a database: {error.strerror}; name another file with --db") from None
    if stat.S_ISLNK(found.st_mode):
        raise InvalidInput(f"{given} is a symbolic link that leads in a circle; remove it, or name another file")
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "no file but a pipe, a socket or a device"
        raise InvalidInput(f"{target} is {what}; name a file with --db")
    if os.path.samefile(source, target):
        raise InvalidInput(f"{backup} is the database {target} itself; name a backup")
    return target


class _Replacement:
    """The step in which the name changes hands."""

    def __init__(self, scratch: ScratchFile, target: Path, busy_sec: float, *, revoke_since: bool) -> None:
        self._scratch = scratch
        self._target = target
        self._busy_sec = busy_sec
        self._revoke_since = revoke_since
        self.kept: Path | None = None
        self.set_aside: tuple[Path, ...] = ()
        self.since: ChangesSinceBackup | None = None
        self.revoked = False

    def run(self) -> None:
        """Wait until nobody has the present database open, and replace it."""
        target = self._target
        with open_files.exclusive_open(target):
            gate = Gate(target)
            try:
                gate.acquire(time.monotonic(), self._busy_sec)
                self._replace_under_gate()
            except apsw.BusyError as error:
                raise open_elsewhere_error(target, self._busy_sec) from error
            except apsw.Error as error:
                raise translate(error, target, self._busy_sec) from error
            except OSError as error:
                raise StorageFailed(
                    f"cannot put a registry in place at {target}: {error.strerror} ({error.filename}); what was there "
                    "is there still, or beside it. Check the folder and its disk, and try again"
                ) from error
            finally:
                gate.close()

    def _replace_under_gate(self) -> None:
        target, scratch = self._target, self._scratch
        try:
            found = os.lstat(target)
        except FileNotFoundError:
            refuse_if_removed_in_use(target, self._busy_sec)
            self.set_aside = set_aside(target)
            copy_owner(scratch.descriptor, os.stat(target.parent), mode=False)
            scratch.sync()
            try:
                scratch.publish_as(target)
            except FileExistsError:  # just made by a program that makes missing databases
                self._replace_under_gate()
            else:
                sync_folder(target.parent)
            return
        if found.st_nlink > 1 and count_other_links(target, found):
            raise InvalidInput(
                f"{target} has {found.st_nlink} names (hard links): who uses another one would stay with what is there "
                f"now. Find them with 'find DIR -xdev -samefile {target}', remove them, and try again"
            )
        if found.st_size == 0 and nonempty_journals(target):
            refuse_if_removed_in_use(target, self._busy_sec)
            self.set_aside = set_aside(target)  # SQLite would delete them when it opens an empty file
        connection = self._lock()
        try:
            if connection is None:
                refuse_if_removed_in_use(target, self._busy_sec)
            copy_owner(scratch.descriptor, found, mode=True)
            scratch.sync()
            self.kept, moved = replace_database(scratch, target)
            self.set_aside += moved
        finally:
            if connection is not None:
                connection.close()

    def _lock(self) -> apsw.Connection | None:
        """Merge the present database's WAL into it and lock it for everybody else; None when it is damaged.

        What is damaged is kept as it is, with its journals; nobody can work on it.
        """
        deadline = time.monotonic() + self._busy_sec
        while True:
            try:
                self._merge_wal(deadline)
                connection = self._locked_transaction(deadline)
            except (apsw.NotADBError, apsw.CorruptError):
                return None
            if connection is not None:
                return connection
            if time.monotonic() > deadline:
                raise apsw.BusyError("opened again and again")
            time.sleep(_RETRY_SEC)

    def _merge_wal(self, deadline: float) -> None:
        """Copy the WAL into the database, while nobody else has it open, and turn it into a rollback journal's.

        Raises:
            apsw.CorruptError: it is damaged; then nothing is copied.
        """
        connection = self._connect(deadline)
        try:
            lock_exclusively(connection)
            refuse_if_removed_in_use(self._target, self._busy_sec)
            refuse_foreign(self._target, connection_file_kind(connection))
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise apsw.CorruptError("quick_check")
            connection.pragma("journal_mode", "delete")
            # Gives the lock up and removes the journal. Left to close() it would be removed by name, when the name is
            # that of another database's.
            connection.pragma("locking_mode", "NORMAL")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        finally:
            connection.close()

    def _locked_transaction(self, deadline: float) -> apsw.Connection | None:
        """Return a connection in an exclusive transaction that writes nothing; None when somebody came in between."""
        connection = self._connect(deadline)
        try:
            connection.execute("ATTACH ? AS restored", (immutable_uri(self._scratch.path),))
            connection.execute("BEGIN EXCLUSIVE")
            if connection.pragma("journal_mode") != "delete" or nonempty_journals(self._target):
                connection.close()
                return None
            self._carry_over(connection)
            return connection
        except BaseException:
            connection.close()
            raise

    def _connect(self, deadline: float) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(str(self._target), flags=flags)
        connection.set_busy_timeout(max(1, round((deadline - time.monotonic()) * 1000)))
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # what is damaged stays as it is
        return connection

    def _carry_over(self, connection: apsw.Connection) -> None:
        """Give the restored registry what only the present one knows: its mark and, if asked, what was revoked."""
        changes: list[StatementCall] = []
        try:
            if connection.execute(RESTORE.is_marked_shared.text).fetchone() is not None:
                changes.append((RESTORE.put_restored_setting, (SHARED, "1")))
            self.since, tokens = _compare(connection)
        except apsw.SQLError:
            return  # it has no tables yet
        if self._revoke_since and self.since is not None:
            now = time.time_ns() // 1_000_000
            changes += [(RESTORE.revoke_restored_token, (job, kid, revoked or now)) for job, kid, revoked, _ in tokens]
            self.revoked = True
        if self.since is not None:
            changes.append(_restore_note([] if self.revoked else [(job_id, kid) for _, kid, _, job_id in tokens]))
        _write(self._scratch.path, changes)


def _restore_note(valid_again: list[tuple[str, int]] | None) -> StatementCall:
    """Return the note for the doctor: when it was restored, and which revoked tokens are valid again, if known."""
    found = {
        "at_ms": time.time_ns() // 1_000_000,
        "known": valid_again is not None,
        "valid_again": (valid_again or [])[:_MOST_NOTED],
    }
    return (RESTORE.put_restored_setting, (RESTORE_NOTE, json.dumps(found)))


def _compare(connection: apsw.Connection) -> tuple[ChangesSinceBackup | None, list[tuple[int, int, int | None, str]]]:
    """Compare ``main`` with ``restored``: the counts, and the tokens that were revoked since."""

    def ask(statement: Statement) -> list[Any]:
        return list(connection.execute(statement.text))

    ((in_common, gone),) = ask(RESTORE.common_jobs)
    if in_common == 0 and gone > 0:
        return None, []
    tokens: list[tuple[int, int, int | None, str]] = ask(RESTORE.revoked_since)
    ((ahead,),) = ask(RESTORE.subscriptions_ahead)
    return ChangesSinceBackup(len(tokens), len({token[0] for token in tokens}), gone, ahead), tokens


def _write(scratch: Path, changes: list[StatementCall]) -> None:
    if not changes:
        return
    try:
        connection = open_scratch(scratch)
        try:
            # Not apsw's own block: its rollback fails where SQLite has rolled back on a full disk, and hides the cause.
            connection.execute("BEGIN IMMEDIATE")
            for statement, values in changes:
                connection.execute(statement.text, values)
            connection.execute("COMMIT")
        finally:
            connection.close()
    except apsw.Error as error:
        raise translate(error, scratch, 0.0) from error


def _master_key_id(scratch: Path) -> str | None:
    try:
        connection = open_scratch(scratch)
        try:
            row = connection.execute(RESTORE.restored_key_id.text).fetchone()
        finally:
            connection.close()
    except apsw.Error as error:
        raise translate(error, scratch, 0.0) from error
    return None if row is None else str(row[0])
