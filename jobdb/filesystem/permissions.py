"""The creation of files and folders that nobody else may read: folders 0700, files 0600, with the right owner.

Called by the engines, by the master key and wherever a private file is created. Files get their mode before SQLite sees
them. Existing files are examined with ``stat`` only: POSIX drops all of a process's locks on a file as soon as any
descriptor of it is closed, so opening a database here, even to read one byte, would unlock it under an open connection
(https://www.sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from ..errors import StorageFailed

if TYPE_CHECKING:
    pass

COMPANION_SUFFIXES = ("-wal", "-shm", "-journal", "-gate")
"""The files that may exist beside a database: SQLite's own, and the gate at which writers queue."""
JOURNAL_SUFFIXES = ("-shm", "-journal", "-wal")
"""The companions that SQLite applies to any database with that name."""


def make_private_folder(path: str | os.PathLike[str]) -> list[str]:
    """Create a folder, and missing ones above it, with mode 0700; an existing one stays as it is.

    The new names are durable when this returns.

    Returns:
        The folders that this call created, the innermost one first.

    Raises:
        StorageFailed: it cannot be created, or the name is that of another kind of file.
    """
    from .folder_sync import sync_folder  # imported here: most commands create nothing

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
            match_owner(name, os.path.dirname(name))
            made.insert(0, name)
            os.chmod(name, 0o700)  # the umask may have removed the owner's permissions
        except FileExistsError:
            if not os.path.isdir(name):
                raise StorageFailed(
                    f"cannot create the folder {name}: a file has that name; move it away or choose another place"
                ) from None
        except OSError as problem:
            raise StorageFailed(
                f"cannot create the folder {name}: {problem.strerror}; create it yourself, or choose another place"
            ) from problem
        sync_folder(os.path.dirname(name))
    return made


def create_private_file(path: str | os.PathLike[str]) -> bool:
    """Create an empty file of mode 0600 for SQLite to open: its -wal and -shm get the database's mode.

    Atomic among processes; it opens no existing file. Created by root, it belongs to the folder's owner.

    Returns:
        True if this call created it, False if the name was taken.

    Raises:
        StorageFailed: the folder is missing or not writable.
    """
    from .folder_sync import sync_folder

    target = os.path.realpath(path)  # SQLite follows links too, and its journals are beside the target
    try:
        try:
            # Creates the file without a descriptor, so there is none whose closing could drop a lock that
            # another thread's connection already holds on it.
            os.mknod(target, stat.S_IFREG | 0o600)
        except PermissionError:
            # Some systems (macOS) allow mknod to root only. In a folder that is not writable this fails as well.
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        os.chmod(target, 0o600)  # the umask may have removed the owner's permissions
        match_owner(target, os.path.dirname(target))
    except FileExistsError:
        return False
    except OSError as problem:
        raise StorageFailed(
            f"cannot create the file {target}: {problem.strerror}; make sure that the folder exists and is writable"
        ) from problem
    sync_folder(os.path.dirname(target))
    return True


def create_companion(path: str | os.PathLike[str], database: str | os.PathLike[str]) -> bool:
    """Create an empty file with the owner and the mode of the database beside it, as SQLite does with a -wal.

    Without a database it belongs to the folder's owner and has mode 0600.

    Returns:
        True if this call created it, False if the name was taken.

    Raises:
        OSError: it cannot be created.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    try:
        try:
            reference = os.stat(database)
        except FileNotFoundError:
            reference = os.stat(os.path.dirname(os.path.abspath(path)))
        copy_owner(descriptor, reference, mode=stat.S_ISREG(reference.st_mode))
    finally:
        os.close(descriptor)
    return True


def copy_owner(descriptor: int, reference: os.stat_result, *, mode: bool) -> None:
    """Give an open file the owner and group of another file, as far as this process may.

    Args:
        descriptor: the file.
        reference: the other file.
        mode: also copy the permissions to read and write, those of the group only if it is the same group. Without it,
            only root changes the owner.
    """
    if not mode and os.geteuid() != 0:
        return
    info = os.fstat(descriptor)
    for owner, group in ((reference.st_uid, reference.st_gid), (-1, reference.st_gid)):
        if (info.st_uid, info.st_gid) == (reference.st_uid, reference.st_gid):
            break
        if owner != -1 and os.geteuid() != 0:
            continue
        with contextlib.suppress(OSError):  # as SQLite does: a file that may not be given away stays ours
            os.fchown(descriptor, owner, group)
            break
    if mode:
        same_group = os.fstat(descriptor).st_gid == reference.st_gid
        os.fchmod(descriptor, reference.st_mode & (0o666 if same_group else 0o606) | stat.S_IRUSR | stat.S_IWUSR)


def match_owner(path: str | os.PathLike[str], reference: str | os.PathLike[str]) -> None:
    """Give a file that root has just created to the owner and group of ``reference``, as SQLite does with a -wal.

    Otherwise a file that root created would lock out the user whose service works here. For any other user this does
    nothing. If another file has been put in its place meanwhile, that one is left alone: a hard link would otherwise
    give away a file of root's.

    Args:
        path: a file or folder that this process has just created.
        reference: the database or the folder that it belongs to.
    """
    if os.geteuid() != 0:
        return
    wanted = os.stat(reference)
    # With an O_PATH descriptor the file cannot be exchanged meanwhile, and closing it drops no lock on it.
    descriptor = os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(descriptor)
        ours = stat.S_ISDIR(info.st_mode) or (stat.S_ISREG(info.st_mode) and info.st_nlink == 1)
        if not ours or info.st_uid != 0 or (wanted.st_uid, wanted.st_gid) == (info.st_uid, info.st_gid):
            return
        with contextlib.suppress(OSError):
            if hasattr(os, "O_PATH"):
                os.chown(f"/proc/self/fd/{descriptor}", wanted.st_uid, wanted.st_gid)
            else:
                os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
    finally:
        os.close(descriptor)
