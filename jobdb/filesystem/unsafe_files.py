"""The refusal of files that this process must not write to: links, files of other users, files with a second name.

Called by the SQLite engine and by restore before they open a database or a file beside it; never opens a database
itself. A name in a folder from another source (a checkout, an archive, a folder that others may write to) can lead to
any file of this user's.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ..errors import StorageFailed, Unusable
from .permissions import COMPANION_SUFFIXES

if TYPE_CHECKING:
    from pathlib import Path


def open_private_file(
    path: str | os.PathLike[str], flags: int, *, database: str | os.PathLike[str] | None = None
) -> int:
    """Open a file for writing: never through a link, never another user's.

    Args:
        path: the file; a new one gets mode 0600.
        flags: as for ``os.open``, without ``O_TRUNC``: nothing may be truncated before it is checked.
        database: the database beside the file; files of its owner are accepted too.

    Returns:
        The descriptor, closed on exec.

    Raises:
        OSError: as ``os.open`` does.
        StorageFailed: it is a link, not a regular file, has a second name, or belongs to another user.
    """
    target = os.fspath(path)
    try:
        descriptor = os.open(target, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError:
        refuse_unsafe_file(target, database=database)
        raise
    try:
        _refuse_unsafe(target, os.fstat(descriptor), database)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def refuse_unsafe_file(path: str | os.PathLike[str], *, database: str | os.PathLike[str] | None = None) -> None:
    """Refuse what `open_private_file` would, by ``lstat`` only; accept a name that does not exist.

    Raises:
        StorageFailed: it is a link, not a regular file, has a second name, or belongs to another user.
    """
    try:
        info = os.lstat(path)
    except OSError:
        return
    _refuse_unsafe(os.fspath(path), info, database)


def refuse_unsafe_companions(db_path: str | os.PathLike[str]) -> None:
    """Refuse a database beside which there is a file that SQLite or the gate must not write to.

    Raises:
        StorageFailed: one of them is a link, not a regular file, has a second name, or belongs to another user.
    """
    target = os.path.realpath(db_path)
    for suffix in COMPANION_SUFFIXES:
        refuse_unsafe_file(target + suffix, database=target)


def _refuse_unsafe(target: str, info: os.stat_result, database: str | os.PathLike[str] | None) -> None:
    if stat.S_ISLNK(info.st_mode):
        what = "is a symbolic link"
    elif not stat.S_ISREG(info.st_mode):
        what = "is not a regular file"
    elif info.st_nlink > 1:
        what = "has a second name (a hard link)"
    elif not _has_trusted_owner(info, database):
        what = f"belongs to another user (uid {info.st_uid})"
    else:
        return
    raise StorageFailed(
        f"{target} {what}, so nothing was written to it. Find out where it came from "
        f"('ls -l {target}'), and remove it if no process has the database open"
    )


def _has_trusted_owner(info: os.stat_result, database: str | os.PathLike[str] | None) -> bool:
    if info.st_uid in (os.geteuid(), 0):
        return True
    if database is None:
        return False
    try:
        try:
            beside = os.stat(database)
        except FileNotFoundError:  # it is about to be created: then files belong to the owner of the folder
            beside = os.stat(os.path.dirname(os.path.abspath(database)))
    except OSError:
        return False
    shared = bool(beside.st_mode & stat.S_IWGRP) and info.st_gid == beside.st_gid  # deliberately shared by a group
    return info.st_uid == beside.st_uid or shared


def refuse_hard_links(path: Path) -> None:
    """Refuse a database file that has a second name.

    Each name would have a WAL, a gate and locks of its own: SQLite finds them by the name that it was given.

    Raises:
        Unusable: it has more than one name.
    """
    found = os.stat(path)
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise hard_link_error(path)


def hard_link_error(path: Path) -> Unusable:
    """Return the error for a database file that has a second name."""
    return Unusable(
        f"{path} has a second name (a hard link), and a process that opens that uses another write-ahead log: commits "
        f"would be lost. Nothing was written. Find it with 'find FOLDER -xdev -samefile {path}' and remove it; if you "
        "need a copy, make one with jobdb backup after that"
    )
