"""Kill a restore at every state that its steps leave in the folder, and inspect the folder.

Run by test_restore_kills as ``-m tests.operations.restore_program PREPARED WORK WAY``. PREPARED holds a folder db, with
or without a database, and saved.db. Prints one object per line: the state after a kill and after the next restore. This
process opens no database itself: its forked children do.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from jobdb.engines.sqlite import stale_journals
from jobdb.filesystem import atomic_files
from jobdb.filesystem.permissions import COMPANION_SUFFIXES
from jobdb.operations import backup_file, locked_replace, replace_database, restored_file
from jobdb.operations import restore as restore_module
from jobdb.operations.restore import restore_registry
from jobdb.urls import parse_url

STEPS = {
    module.__file__
    for module in (
        atomic_files,
        stale_journals,
        restore_module,
        locked_replace,
        restored_file,
        backup_file,
        replace_database,
    )
}


def run_in_child(work: Callable[[], object]) -> int:
    """Print the result of ``work`` in a child; return the child's status."""
    child = os.fork()
    if child == 0:
        try:
            found = work()
            if found is not None:
                print(json.dumps(found), flush=True)
            os._exit(0)
        except BaseException as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
            os._exit(9)
    return os.waitpid(child, 0)[1]


def snapshot(folder: Path) -> list[tuple[str, int, int, int]]:
    """Return the names in the folder with their inodes, sizes and link counts."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    return sorted((name, stat.st_ino, stat.st_size, stat.st_nlink) for name, stat in found)


def restore(folder: Path, kill_at: int | None) -> None:
    """Restore, and die in the ``kill_at``-th distinguishable state."""
    database = folder / "db"
    seen = [snapshot(database)]

    def trace(frame: Any, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in STEPS:
            return None
        if event == "line" and snapshot(database) != seen[-1]:
            seen.append(snapshot(database))
            if len(seen) > kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    if kill_at is not None:
        sys.settrace(trace)
    restore_registry(folder / "saved.db", parse_url(database / "jobs.db"))


def jobs_in(path: Path) -> list[str] | str:
    """Open the database as any user does; return the ids of its jobs."""
    if not path.exists():
        return "missing"
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        found = [row[0] for row in connection.execute("SELECT job_id FROM jobs ORDER BY job_id")]
        sound = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        return found if sound else "damaged"
    except apsw.Error:
        return "damaged"


def inspect_folder(folder: Path, **more: Any) -> dict[str, Any]:
    """Return the contents of a copy of the folder: opening changes it, and the next restore must find it unchanged."""
    database = folder / "db" / "jobs.db"
    names = database.stat().st_nlink if database.exists() else 0
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in database.parent.iterdir()]
    copy = folder.with_name("looked-at")
    shutil.copytree(folder, copy)
    inside = sorted((copy / "db").iterdir())
    kept = [
        path
        for path in inside
        if path.name.startswith("jobs.db.replaced-") and not path.name.endswith(COMPANION_SUFFIXES)
    ]
    found = {
        "database": jobs_in(copy / "db" / "jobs.db"),
        "kept": [jobs_in(path) for path in kept],
        "names": names,
        "scratch": sum(".restoring" in path.name for path in inside),
        "digests": digests,
    }
    shutil.rmtree(copy)
    return {**found, **more}


def cannot_link(*_names: Any, **_options: Any) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def main() -> None:
    prepared, work, method = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    if method != "exchange":
        replace_database.exchange = lambda _one, _other: False
    if method == "rename":
        os.link = cannot_link
    kill_at = 1
    while True:
        folder = work / "registry"
        shutil.copytree(prepared, folder)
        status = run_in_child(lambda folder=folder, kill_at=kill_at: restore(folder, kill_at))
        killed = os.WIFSIGNALED(status)
        run_in_child(lambda folder=folder, killed=killed: inspect_folder(folder, after="kill" if killed else "end"))
        if not killed:
            return
        run_in_child(lambda folder=folder: restore(folder, None))
        run_in_child(lambda folder=folder: inspect_folder(folder, after="another"))
        shutil.rmtree(folder)
        kill_at += 1


if __name__ == "__main__":
    main()
