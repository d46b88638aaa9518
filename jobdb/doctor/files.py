"""The checks of the SQLite library, the folder, the files and the header, without opening the database.

Called by ``doctor.diagnose`` before it opens anything, and again when everything is closed. Uses ``stat`` and, while
this process has no connection, reads the header. May call the file system and the SQLite engine's file helpers.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import stat
import time
from pathlib import Path
from typing import NamedTuple

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
from ..system.durations import format_duration
from .findings import DoctorReport, describe_error

_MIN_FREE_BYTES = 256 << 20
_STALE_JOURNAL_SEC = 60.0
_ABANDONED_FILE_SEC = 3600.0

_MODE_COMMAND = re.compile(r"; \w+ it with: (?P<command>chmod .*)", re.DOTALL)
"""The end of a warning about a mode, as the file system package words it: the command that fixes it."""


def check_filesystem(report: DoctorReport, path: Path, placement: Placement) -> None:
    """Check the SQLite library, the folder's file system and its free space."""
    import apsw

    try:
        refuse_wal_reset_bug()
        report.passed("sqlite", f"SQLite {apsw.sqlite_lib_version()}, without the WAL-reset bug")
    except Unusable as error:
        report.fail("sqlite", describe_error(error), "pip install --upgrade apsw")
    where = f"{placement.fs_type} at {placement.mount_point or placement.folder}: {placement.reason}"
    if placement.refused:
        report.fail("file system", where, placement.advice)
    else:
        report.passed("file system", f"{where}; {placement.advice}" if placement.advice else where)
    export = check_export(placement)
    if export is not None and export.level == "fail":
        report.fail("export", f"{export.message}; {export.advice}", "exportfs -ra")
    elif export is not None:  # a warning about something that cannot be determined from here would never go away
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


def check_file(report: DoctorReport, path: Path, placement: Placement) -> bool:
    """Check the file itself: its names, owner, mode and header; return False if it should not be opened."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        report.fail("file", *_missing_database(report, path, f"there is no database at {path}"))
        return False
    except OSError as error:
        report.fail("file", f"cannot access {path}: {error.strerror}", _fix_file_access(path, error))
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
            if isinstance(cause, OSError):  # it is unreadable, which does not mean that it is damaged
                report.fail("file", f"cannot read {path}: {cause.strerror}", _fix_file_access(path, cause))
            else:
                regular = os.path.isfile(path)
                report.fail("file", describe_error(error), f"{report.command} restore BACKUP" if regular else None)
            return False
    if found is FileKind.FOREIGN:
        report.fail("file", f"{path} is a SQLite database of another program", "jobdb --db ANOTHER_FILE init")
        return False
    one_name = _check_hard_links(report, path)
    _check_owners(report, path)
    _check_modes(report, path)
    if found is FileKind.UNMARKED:
        report.fail("schema", describe_error(unmarked_error(path)), f"{report.command} migrate")
        return False
    return one_name and (header is None or _check_header(report, path, header, found, placement))


class _Advice(NamedTuple):
    """A finding's message and the command that fixes it."""

    message: str
    fix_command: str | None


def _missing_database(report: DoctorReport, path: Path, message: str) -> _Advice:
    """Add the known facts about the missing database to the message, and choose the fix."""
    full_path = Path(os.path.realpath(path))
    holder = shm_lock_holder(full_path)
    if holder is not None:
        return _Advice(
            f"{message}, and process {holder} has the database open that was there: while it runs, its files can be "
            f"copied from /proc/{holder}/fd. If the database was renamed, stop that process and restore the old name",
            f"ls -l /proc/{holder}/fd",
        )
    left = nonempty_journals(full_path)
    if left:
        return _Advice(
            f"{message}, and next to it is {' and '.join(map(str, left))}, which is part of the database that was "
            "there: if you still have that, restore its old name",
            f"{report.command} restore BACKUP",
        )
    return _Advice(message, f"{report.command} init")


def _fix_file_access(path: Path, error: OSError) -> str | None:
    """Return the command that gives this user the permission to read, or runs as the user who has it.

    None if no permission is missing.
    """
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


def _check_header(report: DoctorReport, path: Path, header: Header, found: FileKind, placement: Placement) -> bool:
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
            f"{path} is in WAL mode on a file system where WAL loses data; fix it on the host that owns the disk",
            f"{report.command} init --shared",
        )
        return False
    return True


def _check_hard_links(report: DoctorReport, path: Path) -> bool:
    names = path.stat().st_nlink
    if names > 1:
        report.fail(
            "file",
            f"{path} has {names} names (hard links), so no command opens it: a process that opens another name has "
            "another WAL, and the database would be damaged. Remove the others",
            f"find {shlex.quote(str(path.absolute().parent))} -xdev -samefile {shlex.quote(str(path.absolute()))}",
        )
        return False
    report.passed("file", f"{path.absolute()}, {path.stat().st_size >> 10} KiB")
    return True


def _check_owners(report: DoctorReport, path: Path) -> None:
    """Check that no other user, such as root, has created files next to the database, which lock its owner out."""
    owner = path.stat().st_uid
    foreign = []
    for suffix in COMPANION_SUFFIXES:
        beside = Path(f"{path}{suffix}")
        try:
            if beside.stat().st_uid != owner:
                foreign.append(str(beside))
        except FileNotFoundError:
            continue
    if not foreign:
        report.passed("owner", f"all files belong to {_user_name(owner)}")
        return
    report.warn(
        "owner",
        f"{', '.join(foreign)} does not belong to {_user_name(owner)}, the database's owner; it may lock that user out",
        f"chown {_user_name(owner)} {' '.join(map(shlex.quote, foreign))}",
    )


def _check_modes(report: DoctorReport, path: Path) -> None:
    sentences = check_modes(path)
    for sentence in sentences:
        report.warn("file modes", *split_mode_warning(sentence))
    if not sentences:
        report.passed("file modes", "only their owner may use the files")


def split_mode_warning(sentence: str) -> _Advice:
    """Split a warning about a mode into the finding and the chmod command at its end."""
    ending = _MODE_COMMAND.search(sentence)
    return _Advice(sentence, None) if ending is None else _Advice(sentence[: ending.start()], ending["command"])


def check_leftovers(report: DoctorReport, path: Path, left_journal_age_sec: float | None) -> None:
    """Check for files left by dead processes, after the database was opened.

    Args:
        report: takes the findings.
        path: the database.
        left_journal_age_sec: the age of the journal that existed before the database was opened; None if none did.
    """
    if left_journal_age_sec is not None and left_journal_age_sec > _STALE_JOURNAL_SEC:
        age_sec = journal_age_sec(path)
        if age_sec is None:
            report.passed("leftovers", "a writer had died during a commit; opening the database rolled it back")
        else:
            report.warn(
                "leftovers",
                f"{path}-journal is {format_duration(age_sec)} old: a transaction has been open since then, or cannot "
                "be rolled back",
                f"fuser -v {shlex.quote(str(path))}",
            )
        return
    abandoned = [file for file in _scratch_files(path) if (_content_age_sec(file) or 0.0) > _ABANDONED_FILE_SEC]
    for file in abandoned:
        report.warn(
            "leftovers",
            f"{file} was left by a restore or a migration that was interrupted",
            f"rm {shlex.quote(str(file))}",
        )
    if not abandoned:
        report.passed("leftovers", "none")


def journal_age_sec(path: Path) -> float | None:
    """Return the seconds since the database's rollback journal was written; None if it has no content."""
    return _content_age_sec(Path(f"{path}-journal"))


def _scratch_files(path: Path) -> list[Path]:
    """Return the files that restore and migrate's backup create next to the database under scratch names."""
    ours = re.compile(re.escape(path.name) + r"\.(?:restoring|copying)(?:-[0-9a-f]{8})?")
    return sorted(path.with_name(name) for name in os.listdir(path.parent) if ours.fullmatch(name))


def _content_age_sec(path: Path) -> float | None:
    """Return the seconds since a file was written; None if it is missing or empty."""
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
