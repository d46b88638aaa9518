"""Restore: replace the current SQLite registry with a backup.

Called by ``jobdb restore``. The backup is copied, checked and prepared under a scratch name; then the file takes the
database's name in one step, under the gate and SQLite's exclusive lock (``locked_replace``). The name always refers to
the old or the new registry, never to a mixture: the -wal and -journal of the old one are moved away before it is. May
call the SQLite engine's helpers and the other modules of this package, never an open registry.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ..engines.identity import REGISTRY_ID, new_registry_id
from ..engines.sqlite.placement_check import check_placement
from ..errors import InvalidInput
from ..filesystem.permissions import make_private_folder
from ..filesystem.scratch_file import ScratchFile
from ..urls import DatabaseUrl
from .backup_file import copy_backup_file, resolve_backup, sqlite_path, verify
from .locked_replace import replace_under_lock
from .replace_database import refuse_unsafe_journals
from .restored_file import RESTORED_FILE, StatementCall, note_restore, read_key_id, write_changes
from .since_backup import ChangesSinceBackup


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """The result of a restore.

    Attributes:
        path: the database, links resolved.
        jobs, events: the number of jobs and of events in it.
        kept: the database that was replaced, under its new name; None if there was none.
        set_aside: the -wal and -journal of a database that is gone or damaged, under their new names.
        since: the changes in the replaced database that the backup does not have; None if unknown.
        revoked: True if the tokens that ``since`` counts were revoked in the restored registry too.
        same_registry: True if brokers and tickets treat it as the registry that was backed up.
        key_id: the id of the master key that its secrets are sealed under; None if it contains no secret.
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


def restore_registry(
    backup: Path,
    url: DatabaseUrl,
    *,
    busy_sec: float = 5.0,
    revoke_since: bool = False,
    same_registry: bool = False,
) -> RestoreReport:
    """Replace the current registry with a backup, and keep the current one under another name.

    Args:
        backup: the backup file, which is not changed.
        url: the place of the registry; a link is followed.
        busy_sec: how long to wait until no process has the current one open, in seconds.
        revoke_since: True to revoke the tokens that were revoked or rotated away in the current one since the backup;
            otherwise they are valid again.
        same_registry: True to keep the backup's registry id, so that brokers' sessions and tickets continue. Only if
            the registry that was backed up is gone for good: two with the same id take each other's messages.

    Returns:
        The result; ``kept`` is the name of the database that was replaced.

    Raises:
        Busy: the current database is open in a process.
        InvalidInput: the backup is not a file, is the database itself, or the database has other names.
        NotAJobdbDatabase, StorageFailed, SchemaMismatch: the backup is not valid, or the current file is a database of
            another program.
        StorageFailed: the name of the database's journal belongs to a link, a folder or another user's file.
        UnsafeFileSystem: the folder's file system cannot hold a database safely.
        Unusable: this process has the current one open.

    Example:
        report = restore_registry(Path("/backups/jobs.db"), parse_url("jobs.db"), revoke_since=True)
        print(f"{report.jobs} jobs; the previous database is now {report.kept}")
    """
    source = resolve_backup(backup)
    target = _resolve_target(url, source, backup)
    check_placement(target)
    if target.exists():
        refuse_unsafe_journals(target)
    make_private_folder(target.parent)
    with ScratchFile(target, "restoring") as scratch:
        copy_backup_file(source, scratch.path)
        jobs, events = verify(scratch.path, named=backup)
        write_changes(scratch.path, _preparation(same_registry=same_registry))
        key_id = read_key_id(scratch.path)
        replaced = replace_under_lock(scratch, target, busy_sec=busy_sec, revoke_since=revoke_since)
    return RestoreReport(
        path=target,
        jobs=jobs,
        events=events,
        kept=replaced.kept,
        set_aside=replaced.set_aside,
        since=replaced.carried_over.since,
        revoked=replaced.carried_over.revoked,
        same_registry=same_registry,
        key_id=key_id,
    )


def _preparation(*, same_registry: bool) -> list[StatementCall]:
    """Return the statements that prepare every copied backup, whatever it replaces."""
    changes = [
        StatementCall(RESTORED_FILE.delete_restored_place),
        StatementCall(RESTORED_FILE.delete_restored_leases),
        note_restore(None),
    ]
    if not same_registry:
        changes += [
            StatementCall(RESTORED_FILE.delete_broker_identities),
            StatementCall(RESTORED_FILE.put_restored_setting, (REGISTRY_ID, new_registry_id())),
        ]
    return changes


def _resolve_target(url: DatabaseUrl, source: Path, backup: Path) -> Path:
    """Return the file to replace or create, with links resolved."""
    given = sqlite_path(url)
    other_file = {"advice": "name another file", "command": "name another file with --db"}
    try:
        os.fsencode(given).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{str(given)!r} is not valid UTF-8, which SQLite requires", **other_file) from None
    target = Path(os.path.realpath(given))
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return target
    except OSError as error:
        raise InvalidInput(f"{given} cannot be a database: {error.strerror}", **other_file) from None
    if stat.S_ISLNK(found.st_mode):
        raise InvalidInput(f"{given} is a symbolic link in a loop; remove it, or name another file")
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device, not a file"
        raise InvalidInput(f"{target} is {kind}", advice="name a file", command="name a file with --db")
    if os.path.samefile(source, target):
        raise InvalidInput(f"{backup} is the database {target} itself; name a backup")
    return target
