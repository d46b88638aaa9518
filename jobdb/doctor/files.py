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
import time
from dataclasses import dataclass
from pathlib import Path

from jobdb.schema import APPLICATION_ID, VERSION

from ..engines.sqlite import opened
from ..engines.sqlite.header import Header, read_header
from ..engines.sqlite.pragmas import refuse_wal_reset_bug
from ..errors import JobdbError, Unusable
from ..filemodes import COMPANIONS, check_modes
from ..filesystem import Placement
from .findings import Report, ago

_LEAST_FREE_BYTES = 256 << 20
_OLD_SEC = 60.0


@dataclass(slots=True)
class Leftovers:
    """What lay beside the database before it was opened."""

    journal_age_sec: float | None = None


def check_place(report: Report, path: Path, placement: Placement) -> None:
    """The SQLite library, the folder's file system and its free space."""
    import apsw

    try:
        refuse_wal_reset_bug()
        report.good("sqlite", f"SQLite {apsw.sqlite_lib_version()}, without the WAL-reset bug")
    except Unusable as error:
        report.fail("sqlite", str(error), "pip install --upgrade apsw")
    where = f"{placement.fs_type} at {placement.mount_point or placement.folder}: {placement.reason}"
    if placement.refused:
        report.fail("file system", where, placement.advice)
    else:
        report.good("file system", f"{where}; {placement.advice}" if placement.advice else where)
    if path.parent.is_dir():
        free = shutil.disk_usage(path.parent).free
        if free < _LEAST_FREE_BYTES:
            report.warn(
                "disk",
                f"{free >> 20} MiB free on {placement.mount_point or path.parent}; a full disk refuses every write",
                f"du -xh {shlex.quote(placement.mount_point or str(path.parent))} | sort -h | tail",
            )
        else:
            report.good("disk", f"{free >> 30} GiB free" if free >> 30 else f"{free >> 20} MiB free")


def check_file(report: Report, path: Path, placement: Placement, leftovers: Leftovers) -> bool:
    """The file itself: its names, owner, mode and header. False when it makes no sense to open it."""
    if not path.exists():
        report.fail("file", f"there is no database at {path}", f"{report.command} init")
        return False
    with opened.standard_library_may_look(path) as free:
        try:
            header = read_header(path) if free else None
        except JobdbError as error:
            report.fail("file", str(error), f"{report.command} restore BACKUP")
            return False
    if header is not None and not header.empty and header.application_id not in (0, APPLICATION_ID):
        report.fail("file", f"{path} is a SQLite database of another program", "jobdb --db ANOTHER_FILE init")
        return False
    _check_names(report, path)
    _check_owners(report, path)
    _check_modes(report, path)
    leftovers.journal_age_sec = _age_of_content(Path(f"{path}-journal"))
    return header is None or _check_header(report, path, header, placement)


def _check_header(report: Report, path: Path, header: Header, placement: Placement) -> bool:
    if header.empty or header.application_id == 0:
        report.fail("schema", f"{path} is empty", f"{report.command} init")
        return False
    if header.user_version != VERSION:
        older = header.user_version < VERSION
        report.fail(
            "schema",
            f"schema version {header.user_version}; this jobdb works with {VERSION}",
            f"{report.command} migrate" if older else "pip install --upgrade jobdb",
        )
        return False
    report.good("schema", f"version {header.user_version}")
    if header.wal and placement.journal != "wal":
        report.fail(
            "journal",
            f"{path} is in WAL mode on a file system where WAL loses data; mend it on the host that owns the disk",
            f"{report.command} init --shared",
        )
        return False
    return True


def _check_names(report: Report, path: Path) -> None:
    names = path.stat().st_nlink
    if names > 1:
        report.warn(
            "file",
            f"{path} has {names} names (hard links): who opens another one has another WAL, and both are damaged",
            f"find {shlex.quote(str(path.absolute().parent))} -xdev -samefile {shlex.quote(str(path.absolute()))}",
        )
    else:
        report.good("file", f"{path.absolute()}, {path.stat().st_size >> 10} KiB")


def _check_owners(report: Report, path: Path) -> None:
    """Files that another user made beside it, such as root in passing, shut its own user out."""
    owner = path.stat().st_uid
    strange = []
    for suffix in COMPANIONS:
        beside = Path(f"{path}{suffix}")
        try:
            if beside.stat().st_uid != owner:
                strange.append(str(beside))
        except FileNotFoundError:
            continue
    if not strange:
        report.good("owner", f"all files belong to {_user(owner)}")
        return
    report.warn(
        "owner",
        f"{', '.join(strange)} belongs to another user than the database, to {_user(owner)}; it may shut that user out",
        f"chown {_user(owner)} {' '.join(map(shlex.quote, strange))}",
    )


def _check_modes(report: Report, path: Path) -> None:
    sentences = check_modes(path)
    for sentence in sentences:
        report.warn("file modes", *split_advice(sentence))
    if not sentences:
        report.good("file modes", "only their owner may use the files")


def split_advice(sentence: str) -> tuple[str, str | None]:
    """A warning about a mode, and the chmod that it ends with."""
    message, marked, command = sentence.partition("; mend it with: ")
    return message, command if marked else None


def check_leftovers(report: Report, path: Path, before: Leftovers) -> None:
    """After the opening: what a writer that died has left, and what became of it."""
    journal = Path(f"{path}-journal")
    now = _age_of_content(journal)
    if before.journal_age_sec is not None and before.journal_age_sec > _OLD_SEC:
        if now is None:
            report.good("leftovers", "a writer had died in mid-commit; opening the database rolled it back")
        else:
            report.warn(
                "leftovers",
                f"{journal} is {ago(now * 1000)} old: a transaction is open since, or cannot be rolled back",
                f"fuser -v {shlex.quote(str(path))}",
            )
        return
    left = [fresh for fresh in _unfinished(path) if (_age_of_content(fresh) or 0.0) > 60 * _OLD_SEC]
    for fresh in left:
        report.warn(
            "leftovers",
            f"{fresh} is left of a restore or a migration that was broken off",
            f"rm {shlex.quote(str(fresh))}",
        )
    if not left:
        report.good("leftovers", "none")


def _unfinished(path: Path) -> list[Path]:
    """What restore, and migrate's backup, build beside the database under names of their own."""
    ours = re.compile(re.escape(path.name) + r"\.(?:restoring|copying)(?:-[0-9a-f]{8})?")
    return sorted(path.with_name(name) for name in os.listdir(path.parent) if ours.fullmatch(name))


def _age_of_content(path: Path) -> float | None:
    """Seconds since a file that has content was written; None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return max(0.0, time.time() - found.st_mtime) if found.st_size else None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
