"""Backup: save a SQLite registry into one file while it is in use.

Called by ``jobdb backup``. The file contains everything that was committed before the backup began: it is created with
SQLite's backup API, verified, synced, and only then given its name. On PostgreSQL use pg_dump or its archiving; the
error message says so. ``restore`` is the reverse. May call an open registry, the SQLite engine and ``backup_file``.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..core import arguments
from ..errors import AlreadyExists, InvalidInput, StorageFailed
from ..filesystem.file_names import is_free, numbered_names, take_first_free, utc_timestamp
from ..filesystem.folder_sync import sync_folder
from ..filesystem.permissions import COMPANION_SUFFIXES, make_private_folder
from ..filesystem.scratch_file import ScratchFile
from ..registry import Registry
from .backup_file import copy_open_database, sqlite_path, verify

_MAX_KEPT = 1_000_000


@dataclass(frozen=True, slots=True)
class Backup:
    """A verified backup.

    Attributes:
        path: the file.
        size_bytes: its size.
        jobs, events: the number of jobs and of events in it.
        removed: older backups that were removed because of ``keep``.
        in_future: backups of the same name that were neither counted nor removed, because the time in their name is in
            the future: the clock was wrong when they were created, or is wrong now.
    """

    path: Path
    size_bytes: int
    jobs: int
    events: int
    removed: tuple[Path, ...] = ()
    in_future: tuple[Path, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return JSON-ready values under stable names."""
        return {
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "jobs": self.jobs,
            "events": self.events,
            "removed": [str(path) for path in self.removed],
            "in_future": [str(path) for path in self.in_future],
        }


def back_up(registry: Registry, target: Path, *, keep: int | None = None) -> Backup:
    """Save the whole registry into one file while others write to it.

    Args:
        registry: the open registry.
        target: the new file; with ``keep`` the current time is put into its name (``jobs-20260619T093200Z.db``).
        keep: how many backups of that name to keep; older ones are removed once the new one is verified.

    Returns:
        The verified backup.

    Raises:
        InvalidInput: the registry is not in SQLite, or the target is the database, one of its files or a folder.
        AlreadyExists: the file exists already.
        StorageFailed: the disk is full or failed, or the copy did not verify; no file of that name is left.

    Example:
        with Registry.open("jobs.db") as registry:
            saved = back_up(registry, Path("/backups/jobs.db"), keep=14)
        print(f"{saved.path} holds {saved.jobs} jobs")
    """
    if keep is not None:
        arguments.integer("keep", keep, least=1, most=_MAX_KEPT)
    sqlite_path(registry.url)
    file = registry.store.file
    assert file is not None
    source = file.path
    target = _resolve_target(target, source)
    stamp = utc_timestamp()
    if keep is None:
        _require_free(target)
    make_private_folder(target.parent)
    with ScratchFile(target, "partial") as scratch:
        registry.store.sync()
        copy_open_database(source, scratch.path, file.identity)
        jobs, events = verify(scratch.path, named=target)
        scratch.sync()
        if keep is None:
            _require_free(target)
            try:
                scratch.publish_as(target)
            except FileExistsError:
                raise AlreadyExists(f"{target} was created by another process meanwhile; name another file") from None
            path = target
        else:
            path = _name_by_time(scratch, target, stamp)
        size = os.fstat(scratch.descriptor).st_size
    sync_folder(target.parent)
    old = _OldBackups() if keep is None else _remove_old(target, path, stamp, keep)
    return Backup(path=path, size_bytes=size, jobs=jobs, events=events, removed=old.removed, in_future=old.in_future)


class _OldBackups(NamedTuple):
    """The older backups of one name: those removed, and those kept because of the time in their name."""

    removed: tuple[Path, ...] = ()
    in_future: tuple[Path, ...] = ()


class _DatedBackup(NamedTuple):
    """A backup whose name contains the time and, within one second, a number; ordered by creation."""

    stamp: str
    number: int
    path: Path


def _resolve_target(target: Path, source: Path) -> Path:
    """Resolve the links in the target's folder; refuse a target that is, or would become, part of a database."""
    try:
        os.fsencode(target).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{str(target)!r} is not valid UTF-8, which SQLite requires; name another file") from None
    target = target.absolute()
    if target.is_dir() or not target.name or target.name == "..":
        raise InvalidInput(f"{target} is a folder; name a file in it, such as {target / 'jobs.db'}")
    for suffix in COMPANION_SUFFIXES:
        if target.name.endswith(suffix):
            raise InvalidInput(
                f"{target} would be mistaken for part of {target.name.removesuffix(suffix)}, since its name ends in "
                f"{suffix}; name another file"
            )
    try:
        same = os.path.samefile(target, source)
    except OSError:
        same = False
    if same:
        raise InvalidInput(f"{target} is the database itself; name another file")
    return Path(os.path.realpath(target.parent), target.name)


def _require_free(target: Path) -> None:
    if os.path.lexists(target):
        raise AlreadyExists(
            f"{target} exists already",
            advice="name another file, or use keep to put the time into its name",
            command="name another file, or use --keep to put the time into its name",
        )
    if not is_free(target):
        raise AlreadyExists(
            f"next to {target} is the -wal, -shm or -journal of a file that had this name; SQLite would apply it to "
            "the backup when that is opened. Move it away, or name another file"
        )


def _name_by_time(scratch: ScratchFile, target: Path, stamp: str) -> Path:
    names = map(target.with_name, numbered_names(f"{target.stem}-{stamp}", target.suffix))
    return take_first_free(filter(is_free, names), scratch.publish_as)


def _remove_old(target: Path, newest: Path, stamp: str, keep: int) -> _OldBackups:
    """Remove all but the newest backups of this name; neither count nor remove those with a time in the future."""
    pattern = re.compile(re.escape(target.stem) + r"-(\d{8}T\d{6}Z)(?:-([1-9]\d*))?" + re.escape(target.suffix))
    older: list[_DatedBackup] = []
    in_future = []
    try:
        for name in os.listdir(newest.parent):
            match = pattern.fullmatch(name)
            path = newest.with_name(name)
            if match is None or not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            if match[1] > stamp:
                in_future.append(path)
            elif path != newest:
                older.append(_DatedBackup(match[1], int(match[2] or 1), path))
        removed = [backup.path for backup in sorted(older)[: max(0, len(older) + 1 - keep)]]
        for path in removed:
            path.unlink(missing_ok=True)
            for suffix in COMPANION_SUFFIXES:  # left by an opened backup
                Path(f"{path}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"{newest} was created and verified, but older backups next to it cannot be removed: {error.strerror} "
            f"({error.filename}). Check the owner and mode of the folder and the files"
        ) from error
    return _OldBackups(tuple(removed), tuple(sorted(in_future)))
