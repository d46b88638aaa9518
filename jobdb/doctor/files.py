"""What can be told without opening the database: the library, the folder, the files, the header.

Called by ``examine`` before it opens anything; looks with ``stat`` and, while this process has no connection, reads the
header.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from jobdb.schema import SCHEMA_VERSION

from ..engines.sqlite import open_files
from ..engines.sqlite.file_kind import FileKind, inspect_file, unmarked_error
from ..engines.sqlite.header import Header
from ..engines.sqlite.lock_holders import shm_lock_holder
from ..engines.sqlite.pragmas import refuse_wal_reset_bug
from ..engines.sqlite.stale_journals import nonempty_journals
from ..errors import JobdbError, Unusable
from ..filesystem.mode_report import check_modes
from ..filesystem.nfs_exports import check_export
from ..filesystem.permissions import COMPANION_SUFFIXES
from ..filesystem.placement import Placement
from .findings import Report, format_age

_MIN_FREE_BYTES = 256 << 20
_STALE_JOURNAL_SEC = 60.0


@dataclass(slots=True)
class Leftovers:
    """What lay beside the database before it was opened."""

    journal_age_sec: float | None = None


def check_filesystem(report: Report, path: Path, placement: Placement) -> None:
    """The SQLite library, the folder's file system and its free space."""
    import apsw

    try:
        refuse_wal_reset_bug()
        report.passed("sqlite", f"SQLite {apsw.sqlite_lib_version()}, without the WAL-reset bug")
    except Unusable as error:
        report.fail("sqlite", str(error), "pip install --upgrade apsw")
    where = f"{placement.fs_type} at {placement.mount_point or placement.folder}: {placement.reason}"
    if placement.refused:
        report.fail("file system", where, placement.advice)
    else:
        report.passed("file system", f"{where}; {placement.advice}" if placement.advice else where)
    export = check_export(placement)
    if export is not None and export.level == "fail":
        report.fail("export", f"{export.message}; {export.advice}", "exportfs -ra")
    elif export is not None:  # what no look from here can settle would be a warning for ever
        report.passed("export", f"{export.message}; {export.advice}" if export.advice else export.message)
    if os.path.isdir(path.parent):
        free = shutil.disk_usage(path.parent).free
        if free < _MIN_FREE_BYTES:
            report.warn(
                "disk",
                f"{free >> 20} MiB free on {placement.mount_point or path.parent}; a full disk refuses every write",
                f"du -xh {shlex.quote(placement.mount_point or str(path.parent))} | sort -h | tail",
            )
        else:
            report.passed("disk", f"{free >> 30} GiB free" if free >> 30 else f"{free >> 20} MiB free")


def check_file(report: Report, path: Path, placement: Placement, leftovers: Leftovers) -> bool:
    """The file itself: its names, owner, mode and header. False when it makes no sense to open it."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        report.fail("file", *_missing_database(report, path, f"there is no database at {path}"))
        return False
    except OSError as error:
        report.fail("file", f"cannot look at {path}: {error.strerror}", _fix_file_access(path, error))
        return False
    if is_folder:
        inside = shlex.quote(str(path / "jobs.db"))
        report.fail("file", f"{path} is a folder; name the database in it", f"jobdb --db {inside} doctor")
        return False
    with open_files.raw_read(path) as free:
        try:
            header, found = inspect_file(path) if free else (None, FileKind.OURS)
        except JobdbError as error:
            cause = error.__cause__
            if isinstance(cause, OSError):  # it could not be read: that says nothing against what is in it
                report.fail("file", f"cannot read {path}: {cause.strerror}", _fix_file_access(path, cause))
            else:
                regular = os.path.isfile(path)
                report.fail("file", str(error), f"{report.command} restore BACKUP" if regular else None)
            return False
    if found is FileKind.FOREIGN:
        report.fail("file", f"{path} is a SQLite database of another program", "jobdb --db ANOTHER_FILE init")
        return False
    one_name = _check_hard_links(report, path)
    _check_owners(report, path)
    _check_modes(report, path)
    leftovers.journal_age_sec = _content_age_sec(Path(f"{path}-journal"))
    if found is FileKind.UNMARKED:
        report.fail("schema", str(unmarked_error(path)), f"{report.command} migrate")
        return False
    return one_name and (header is None or _check_header(report, path, header, found, placement))


def _missing_database(report: Report, path: Path, message: str) -> tuple[str, str]:
    """Say what is known of the database that was there, and what to do."""
    full_path = Path(os.path.realpath(path))
    holder = shm_lock_holder(full_path)
    if holder is not None:
        return (
            f"{message}, and process {holder} has the database open that was: while it runs, its files can be copied "
            f"from /proc/{holder}/fd. Where the database was renamed, stop that process and give it its old name again",
            f"ls -l /proc/{holder}/fd",
        )
    left = nonempty_journals(full_path)
    if left:
        return (
            f"{message}, and beside it lies {' and '.join(map(str, left))}, which is a part of the database that was: "
            "if you still have that, give it its old name again",
            f"{report.command} restore BACKUP",
        )
    return message, f"{report.command} init"


def _fix_file_access(path: Path, error: OSError) -> str | None:
    """Return the command that gives this user the right to read, or runs as who has it; None where none is missing."""
    if not isinstance(error, PermissionError):
        return None
    full_path = path.absolute()
    use_effective_ids = os.access in os.supports_effective_ids
    may_enter = [
        (folder, os.access(folder, os.X_OK, effective_ids=use_effective_ids)) for folder in reversed(full_path.parents)
    ]
    blocked_folder = next((folder for folder, entered in may_enter if not entered), None)
    held = full_path if blocked_folder is None else blocked_folder
    owner = held.stat().st_uid
    if owner != os.geteuid():
        return f"sudo -u {_user_name(owner)} jobdb --db {shlex.quote(str(full_path))} doctor"
    return f"chmod {'u+rw' if blocked_folder is None else 'u+rwx'} {shlex.quote(str(held))}"


def _check_header(report: Report, path: Path, header: Header, found: FileKind, placement: Placement) -> bool:
    if found is FileKind.EMPTY:
        report.fail("schema", *_missing_database(report, path, f"{path} is empty"))
        return False
    if header.user_version != SCHEMA_VERSION:
        older = header.user_version < SCHEMA_VERSION
        report.fail(
            "schema",
            f"schema version {header.user_version}; this jobdb works with {SCHEMA_VERSION}",
            f"{report.command} migrate" if older else "pip install --upgrade jobdb",
        )
        return False
    report.passed("schema", f"version {header.user_version}")
    if header.wal and placement.journal != "wal":
        report.fail(
            "journal",
            f"{path} is in WAL mode on a file system where WAL loses data; mend it on the host that owns the disk",
            f"{report.command} init --shared",
        )
        return False
    return True


def _check_hard_links(report: Report, path: Path) -> bool:
    names = path.stat().st_nlink
    if names > 1:
        report.fail(
            "file",
            f"{path} has {names} names (hard links), so no command opens it: who opens another one has another WAL, "
            "and both would be damaged. Remove the others",
            f"find {shlex.quote(str(path.absolute().parent))} -xdev -samefile {shlex.quote(str(path.absolute()))}",
        )
        return False
    report.passed("file", f"{path.absolute()}, {path.stat().st_size >> 10} KiB")
    return True


def _check_owners(report: Report, path: Path) -> None:
    """Files that another user made beside it, such as root in passing, shut its own user out."""
    owner = path.stat().st_uid
    strange = []
    for suffix in COMPANION_SUFFIXES:
        beside = Path(f"{path}{suffix}")
        try:
            if beside.stat().st_uid != owner:
                strange.append(str(beside))
        except FileNotFoundError:
            continue
    if not strange:
        report.passed("owner", f"all files belong to {_user_name(owner)}")
        return
    report.warn(
        "owner",
        f"{', '.join(strange)} belongs to another user than the database, to {_user_name(owner)}; it may shut that "
        f"user out",
        f"chown {_user_name(owner)} {' '.join(map(shlex.quote, strange))}",
    )


def _check_modes(report: Report, path: Path) -> None:
    sentences = check_modes(path)
    for sentence in sentences:
        report.warn("file modes", *split_advice(sentence))
    if not sentences:
        report.passed("file modes", "only their owner may use the files")


def split_advice(sentence: str) -> tuple[str, str | None]:
    """A warning about a mode, and the chmod that it ends with."""
    message, marked, command = sentence.partition("; fix it with: ")
    return message, command if marked else None


def check_leftovers(report: Report, path: Path, before: Leftovers) -> None:
    """After the opening: what a writer that died has left, and what became of it."""
    journal = Path(f"{path}-journal")
    now = _content_age_sec(journal)
    if before.journal_age_sec is not None and before.journal_age_sec > _STALE_JOURNAL_SEC:
        if now is None:
            report.passed("leftovers", "a writer had died in mid-commit; opening the database rolled it back")
        else:
            report.warn(
                "leftovers",
                f"{journal} is {format_age(now * 1000)} old: a transaction is open since, or cannot be rolled back",
                f"fuser -v {shlex.quote(str(path))}",
            )
        return
    left = [fresh for fresh in _abandoned_files(path) if (_content_age_sec(fresh) or 0.0) > 60 * _STALE_JOURNAL_SEC]
    for fresh in left:
        report.warn(
            "leftovers",
            f"{fresh} is left of a restore or a migration that was broken off",
            f"rm {shlex.quote(str(fresh))}",
        )
    if not left:
        report.passed("leftovers", "none")


def _abandoned_files(path: Path) -> list[Path]:
    """Return what restore, and migrate's backup, build beside the database under names of their own."""
    ours = re.compile(re.escape(path.name) + r"\.(?:restoring|copying)(?:-[0-9a-f]{8})?")
    return sorted(path.with_name(name) for name in os.listdir(path.parent) if ours.fullmatch(name))


def _content_age_sec(path: Path) -> float | None:
    """Seconds since a file that has content was written; None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return max(0.0, time.time() - found.st_mtime) if found.st_size else None


def _user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
