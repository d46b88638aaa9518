"""What can be told without opening the database: the library, the folder, the files, the header, the master key."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobdb.schema import APPLICATION_ID, VERSION

from ..engines.sqlite import opened
from ..engines.sqlite.header import read_header
from ..engines.sqlite.pragmas import refuse_wal_reset_bug
from ..errors import JobdbError, Unusable
from ..filemodes import check_modes
from ..filesystem import place
from .findings import Report

_LEAST_FREE_BYTES = 256 << 20


def check_place(report: Report, path: Path) -> None:
    """The SQLite library and the folder's file system."""
    import apsw

    try:
        refuse_wal_reset_bug()
        report.good("sqlite", f"SQLite {apsw.sqlite_lib_version()}, without the WAL-reset bug")
    except Unusable as error:
        report.fail("sqlite", str(error), "pip install --upgrade apsw")
    placement = place(path.absolute().parent)
    where = f"{placement.fs_type} at {placement.mount_point}: {placement.reason}"
    if placement.refused:
        report.fail("file system", where, placement.advice)
    else:
        report.good("file system", where)
    if path.parent.is_dir():
        free = shutil.disk_usage(path.parent).free
        if free < _LEAST_FREE_BYTES:
            report.warn("disk", f"{free >> 20} MiB free", "free space there, or 'jobdb prune --older-than 30d'")
        else:
            report.good("disk", f"{free >> 30} GiB free" if free >> 30 else f"{free >> 20} MiB free")


def check_file(report: Report, path: Path) -> bool:
    """The file itself, its header and its mode. False when it makes no sense to open it."""
    command = f"jobdb --db {path}"
    if not path.exists():
        report.fail("file", f"there is no database at {path}", f"{command} init")
        return False
    with opened.standard_library_may_look(path) as free:
        try:
            header = read_header(path) if free else None
        except JobdbError as error:
            report.fail("file", str(error), f"{command} restore BACKUP")
            return False
    for sentence in check_modes(path):
        report.warn("file modes", sentence, _quoted_command(sentence))
    if header is None:
        return True
    if header.empty:
        report.fail("schema", f"{path} is empty", f"{command} init")
        return False
    if header.application_id != APPLICATION_ID:
        report.fail("file", f"{path} is a SQLite database of another program", "name another file with --db")
        return False
    if header.user_version != VERSION:
        older = header.user_version < VERSION
        report.fail(
            "schema",
            f"schema version {header.user_version}; this jobdb works with {VERSION}",
            f"{command} migrate" if older else "pip install --upgrade jobdb",
        )
        return False
    report.good("schema", f"version {header.user_version}")
    if header.wal and place(path.absolute().parent).journal != "wal":
        report.fail(
            "journal",
            f"{path} is in WAL mode on a file system where WAL loses data",
            f"on the host that owns the disk: {command} init --shared",
        )
        return False
    return True


def _quoted_command(sentence: str) -> str | None:
    """The chmod that a warning about a file's mode ends with."""
    start = sentence.find("chmod ")
    return sentence[start:].rstrip(".'") if start >= 0 else None
