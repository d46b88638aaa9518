"""Who may read the files: folders 0700, files 0600, made so before SQLite sees them, and checked on opening.

Called by the engines, by the master key and by the doctor. Calls only the operating system, and looks with
``stat`` alone: POSIX drops all of a process's locks on a file as soon as any descriptor for it is closed, so
opening a database here, even to read one byte, would unlock it under a connection that is open.
(https://www.sqlite.org/howtocorrupt.html, section 2.2)
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from .errors import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What may lie beside a database file: SQLite's own files and the gate on which writers queue.
COMPANIONS = ("-wal", "-shm", "-journal", "-gate")

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def secure_folder(path: str | os.PathLike[str]) -> list[str]:
    """Make the folder, and those above it that are missing, with mode 0700; an existing one stays as it is.

    The new names are on disk when this returns.

    Returns:
        The folders that this call made, the innermost one first.

    Raises:
        StorageFailed: it cannot be made, or something that is no folder stands there.
    """
    folder = os.path.abspath(path)
    missing = []
    made: list[str] = []
    above = folder
    while not os.path.isdir(above):
        missing.append(above)
        parent = os.path.dirname(above)
        if parent == above:
            break
        above = parent
    for name in reversed(missing):
        try:
            os.mkdir(name, 0o700)
            made.insert(0, name)
            os.chmod(name, 0o700)  # a umask may have taken our own rights away
        except FileExistsError:
            if not os.path.isdir(name):
                raise StorageFailed(
                    f"cannot make the folder {name}: a file of that name is there; move it away or choose another place"
                ) from None
        except OSError as problem:
            raise StorageFailed(
                f"cannot make the folder {name}: {problem.strerror}; make it yourself, or choose another place"
            ) from problem
        sync_folder(os.path.dirname(name))
    return made


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Put the names in a folder on disk (fsync of a directory, POSIX).

    Raises:
        StorageFailed: the disk did not confirm it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # A folder above ours that we may enter but not list: its owner's names are not ours to sync.
    except OSError as problem:
        raise StorageFailed(f"cannot open the folder {path} to sync it: {problem.strerror}") from problem
    try:
        os.fsync(descriptor)
    except OSError as problem:
        raise StorageFailed(
            f"the disk did not confirm a new name in {path}: {problem.strerror}; check the disk, then try again"
        ) from problem
    finally:
        os.close(descriptor)


def create_private(path: str | os.PathLike[str]) -> bool:
    """Make an empty file of mode 0600, for SQLite to open: its -wal and -shm take the database's mode.

    Atomic among processes, and it opens no existing file.

    Returns:
        True when this call made it, False when something of that name was there.

    Raises:
        StorageFailed: the folder is missing or may not be written.
    """
    place = os.path.realpath(path)  # SQLite follows links too, and its companions lie beside the target.
    try:
        try:
            # Makes the file without a descriptor, so there is none whose closing could drop a lock that
            # another thread's connection already holds on it.
            os.mknod(place, stat.S_IFREG | 0o600)
        except PermissionError:
            # Where mknod is for root alone (macOS); in a folder that may not be written this fails as well.
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        os.chmod(place, 0o600)  # a umask may have taken our own rights away
    except FileExistsError:
        return False
    except OSError as problem:
        raise StorageFailed(
            f"cannot make the file {place}: {problem.strerror}; make sure that the folder is there and may be written"
        ) from problem
    sync_folder(os.path.dirname(place))
    return True


def check_modes(db_path: str | os.PathLike[str], *, companions: Iterable[str] = COMPANIONS) -> list[str]:
    """Say which of a database's files, or its folder, others may use, each with the command that mends it.

    A folder is mentioned when others may write in it without the sticky bit (they could put another database
    in its place), or when it is the database's own and others may enter it: not the working folder, the home
    folder or one that belongs to somebody else, where ``chmod 700`` would be bad advice.

    Args:
        db_path: the database file; it need not exist.
        companions: what is appended to its name for the files beside it.

    Returns:
        One sentence for each finding, empty when all is private.
    """
    place = os.path.realpath(db_path)
    findings = []
    for suffix in ("", *companions):
        warning = file_warning(place + suffix)
        if warning:
            findings.append(warning)
    warning = folder_warning(os.path.dirname(place))
    if warning:
        findings.append(warning)
    return findings


def file_warning(path: str | os.PathLike[str]) -> str | None:
    """One sentence with the chmod that mends it when group or others have any right on a regular file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & _OTHERS:
        return None
    return _sentence("the file", os.fspath(path), found.st_mode, "600")


def folder_warning(path: str | os.PathLike[str]) -> str | None:
    """The same for a folder, by the rule of `check_modes`."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    writable = bool(found.st_mode & _OTHERS_WRITE) and not found.st_mode & stat.S_ISVTX
    if not writable and (not found.st_mode & _OTHERS or not _is_own(os.fspath(path), found)):
        return None
    return _sentence("the folder", os.fspath(path), found.st_mode, "go-w" if not _is_own(path, found) else "700")


def _is_own(path: str | os.PathLike[str], found: os.stat_result) -> bool:
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
        return False
    place = os.path.realpath(path)
    return place not in (_current_folder(), os.path.realpath(os.path.expanduser("~")), "/")


def _current_folder() -> str | None:
    try:
        return os.path.realpath(os.getcwd())
    except OSError:
        return None  # it was removed


def _sentence(what: str, path: str, mode: int, wanted: str) -> str:
    import shlex  # here: mostly there is nothing to mend

    who = [name for name, bits in (("its group", stat.S_IRWXG), ("everybody", stat.S_IRWXO)) if mode & bits]
    return (
        f"{what} {path} has mode {stat.S_IMODE(mode):04o}, which lets {' and '.join(who)} in; "
        f"mend it with: chmod {wanted} {shlex.quote(path)}"
    )
