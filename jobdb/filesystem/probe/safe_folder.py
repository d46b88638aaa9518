"""The check before the first write to a folder that is not local, which takes milliseconds.

Called by the SQLite engine and by a ticket's outbox. It imports none of the longer probes, since every command on such
a folder starts with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shlex
import sys
import time
from pathlib import Path

from ...errors import UnsafeFileSystem
from ..ofd_locks import set_lock
from ..placement import Placement, nearest_existing
from ..policy import ALTERNATIVES
from . import record
from .failures import PartyError, failed_check
from .report import Check, ProbeReport
from .worker import LOCK_LENGTH, LOCK_START


def quick_lock_probe(folder: str | Path) -> ProbeReport:
    """Check within milliseconds that locks exclude in a folder, with two owners in this process.

    Linux grants a lock either to the process or to the open file (fcntl(2), "open file description locks"). The two
    exclude each other, on the wire too, so no second process is needed. Elsewhere the probe between two processes runs
    instead.

    Args:
        folder: an existing, writable folder.

    Returns:
        The report; `ok` is False if a lock did not exclude, was not granted, or no file could be created.
    """
    began = time.monotonic()
    if not sys.platform.startswith("linux"):
        from .local import probe_folder

        return probe_folder(folder)
    name = os.path.join(folder, f".jobdb-probe-{secrets.token_hex(6)}")
    try:
        check = _check_two_owners(name)
    except OSError as error:
        check = failed_check("locks-exclude", PartyError("lock", error.errno or errno.EIO))
    return ProbeReport(os.fspath(folder), "quick", (check,), time.monotonic() - began)


def _check_two_owners(name: str) -> Check:
    one = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        other = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_LENGTH, LOCK_START)
            if _try_ofd_lock(other):
                _try_ofd_lock(other, fcntl.F_UNLCK)
                return failed_check("locks-exclude", None)
            fcntl.lockf(one, fcntl.LOCK_UN, LOCK_LENGTH, LOCK_START)
            if not _try_ofd_lock(other):
                return failed_check("lock-handed-over", None)
            # FUSE does not release such a lock on close, and the inode number is reused.
            _try_ofd_lock(other, fcntl.F_UNLCK)
        finally:
            os.close(other)
    finally:
        os.unlink(name)
        os.close(one)
    return Check("locks-exclude", True, "a lock excludes a second owner and is free when released")


def _try_ofd_lock(fd: int, kind: int = fcntl.F_WRLCK) -> bool:
    try:
        set_lock(fd, kind, LOCK_START, LOCK_LENGTH)
    except (BlockingIOError, PermissionError):
        return False
    return True


def require_safe_folder(placement: Placement) -> None:
    """Refuse a folder in which no database may be written to.

    Called before the first write, and before the folder is created: then the nearest folder above it is probed. It
    costs nothing on a local file system, and some milliseconds elsewhere.

    Args:
        placement: the folder's placement.

    Raises:
        UnsafeFileSystem: the policy refuses the folder, the quick lock probe failed, or the folder needs a probe
            between two hosts and none has passed on this host with the current mount.
    """
    if placement.refused:
        raise UnsafeFileSystem(f"{placement.folder} cannot hold the database: {_reason_and_advice(placement)}")
    if not placement.needs_probe:
        return
    folder = nearest_existing(placement.folder)
    report = quick_lock_probe(folder)
    if not report.ok:
        failure = report.failures[0]
        raise UnsafeFileSystem(f"{placement.folder} cannot hold the database: {failure.detail}; {failure.advice}")
    if placement.needs_peer_probe and not record.has_passed(placement):
        raise UnsafeFileSystem(
            f"{placement.folder} may not be written to yet: {placement.reason}. "
            f"Run 'jobdb probe {shlex.quote(folder)} --peer NAME' at the same time here and on another host that "
            f"uses the folder, each with a name of its own; or {ALTERNATIVES}"
        )


def _reason_and_advice(placement: Placement) -> str:
    return placement.reason if placement.advice is None else f"{placement.reason}; {placement.advice}"
