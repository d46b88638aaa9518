"""Who may read the files: folders 0700, files 0600, made so before SQLite sees them, and checked on opening.

Called by the engines, by the master key and by the doctor. Calls only the operating system, and looks with
``stat`` alone: POSIX drops all of a process's locks on a file as soon as any descriptor for it is closed, so
opening a database here, even to read one byte, would unlock it under a connection that is open.
(https://www.sqlite.org/howtocorrupt.html, section 2.2)
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from ..errors import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What may lie beside a database file: SQLite's own files and the gate on which writers queue.
COMPANION_SUFFIXES = ("-wal", "-shm", "-journal", "-gate")
#: Those that SQLite plays into, or applies to, whatever database stands at the name.
JOURNAL_SUFFIXES = ("-shm", "-journal", "-wal")

_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_GROUP_AND_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private_folder(path: str | os.PathLike[str]) -> list[str]:
    """Make the folder, and those above it that are missing, with mode 0700; an existing one stays as it is.

    The new names are on disk when this returns.

    Returns:
        The folders that this call made, the innermost one first.

    Raises:
        StorageFailed: it cannot be made, or something that is not a folder stands there.
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
            match_owner(name, os.path.dirname(name))
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


def create_private_file(path: str | os.PathLike[str]) -> bool:
    """Make an empty file of mode 0600, for SQLite to open: its -wal and -shm take the database's mode.

    Atomic among processes, and it opens no existing file. Made by root it belongs to the folder's owner.

    Returns:
        True when this call made it, False when something of that name was there.

    Raises:
        StorageFailed: the folder is missing or may not be written.
    """
    target = os.path.realpath(path)  # SQLite follows links too, and its companions lie beside the target.
    try:
        try:
            # Makes the file without a descriptor, so there is none whose closing could drop a lock that
            # another thread's connection already holds on it.
            os.mknod(target, stat.S_IFREG | 0o600)
        except PermissionError:
            # Where mknod is for root alone (macOS); in a folder that may not be written this fails as well.
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        os.chmod(target, 0o600)  # a umask may have taken our own rights away
        match_owner(target, os.path.dirname(target))
    except FileExistsError:
        return False
    except OSError as problem:
        raise StorageFailed(
            f"cannot make the file {target}: {problem.strerror}; make sure that the folder is there and may be written"
        ) from problem
    sync_folder(os.path.dirname(target))
    return True


def open_private_file(
    path: str | os.PathLike[str], flags: int, *, database: str | os.PathLike[str] | None = None
) -> int:
    """Open a file that is to be written to, by its own name: never through a link, never somebody else's.

    A name in a folder that came from elsewhere (a checkout, an archive, a folder that others may write to) can be a
    link to any file of this user's.

    Args:
        path: the file; one that is made gets mode 0600.
        flags: as for ``os.open``, without ``O_TRUNC``: nothing may be cut before it is looked at.
        database: the database that the file lies beside; its owner's files are good, too.

    Returns:
        The descriptor, closed on exec.

    Raises:
        OSError: as ``os.open`` does.
        StorageFailed: it is a link, no regular file, has a second name, or belongs to somebody else.
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
    """Refuse what `open_private_file` would, by ``lstat`` alone; a name that is not there is good.

    Raises:
        StorageFailed: it is a link, no regular file, has a second name, or belongs to somebody else.
    """
    try:
        info = os.lstat(path)
    except OSError:
        return
    _refuse_unsafe(os.fspath(path), info, database)


def refuse_unsafe_companions(db_path: str | os.PathLike[str]) -> None:
    """Refuse a database beside which something stands that SQLite or the gate must not write to.

    Raises:
        StorageFailed: one of them is a link, no regular file, has a second name, or belongs to somebody else.
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
        f"{target} {what}, so nothing was written to it. See where it came from "
        f"('ls -l {target}'), and remove it if nobody has the database open"
    )


def _has_trusted_owner(info: os.stat_result, database: str | os.PathLike[str] | None) -> bool:
    if info.st_uid in (os.geteuid(), 0):
        return True
    if database is None:
        return False
    try:
        try:
            beside = os.stat(database)
        except FileNotFoundError:  # it is about to be made: what lies there belongs to whom the folder does
            beside = os.stat(os.path.dirname(os.path.abspath(database)))
    except OSError:
        return False
    shared = bool(beside.st_mode & stat.S_IWGRP) and info.st_gid == beside.st_gid  # by a group, on purpose
    return info.st_uid == beside.st_uid or shared


def create_companion(path: str | os.PathLike[str], database: str | os.PathLike[str]) -> bool:
    """Make an empty file with the owner and the mode of the database that it lies beside, as SQLite does with a -wal.

    Without a database it belongs to the folder's owner and has mode 0600.

    Returns:
        True when this call made it, False when something of that name was there.

    Raises:
        OSError: it cannot be made.
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
    """Give an open file the owner and group of another, as far as this process may.

    Args:
        descriptor: the file.
        reference: the other.
        mode: whether the rights to read and write are taken over too. A group is let in only if it is the same group.
            Without it this is for what root makes.
    """
    if not mode and os.geteuid() != 0:
        return
    info = os.fstat(descriptor)
    for owner, group in ((reference.st_uid, reference.st_gid), (-1, reference.st_gid)):
        if (info.st_uid, info.st_gid) == (reference.st_uid, reference.st_gid):
            break
        if owner != -1 and os.geteuid() != 0:
            continue
        with contextlib.suppress(OSError):  # as SQLite: what may not be given away stays ours
            os.fchown(descriptor, owner, group)
            break
    if mode:
        same_group = os.fstat(descriptor).st_gid == reference.st_gid
        os.fchmod(descriptor, reference.st_mode & (0o666 if same_group else 0o606) | stat.S_IRUSR | stat.S_IWUSR)


def match_owner(path: str | os.PathLike[str], reference: str | os.PathLike[str]) -> None:
    """Give what root has just made to the owner and group of ``reference``: SQLite does so with a -wal that root makes.

    Made by root in passing, a file would lock out the user whose service works here. For any other user this does
    nothing. What somebody has put in the place meanwhile is left alone: another name of a file of root's would hand
    that file over.

    Args:
        path: a file or folder that this process has just made.
        reference: the database or the folder that it belongs to.
    """
    if os.geteuid() != 0:
        return
    wanted = os.stat(reference)
    # A descriptor for the place alone: it cannot be exchanged under us, and closing it drops no lock on the file.
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


def check_modes(db_path: str | os.PathLike[str], *, companions: Iterable[str] = COMPANION_SUFFIXES) -> list[str]:
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
    target = os.path.realpath(db_path)
    findings = []
    for suffix in ("", *companions):
        if os.path.islink(target + suffix):
            continue  # refused when the database is opened; chmod would change the file that it leads to
        warning = file_warning(target + suffix)
        if warning:
            findings.append(warning)
    warning = folder_warning(os.path.dirname(target))
    if warning:
        findings.append(warning)
    return findings


def file_warning(path: str | os.PathLike[str]) -> str | None:
    """One sentence with the chmod that mends it when group or others have any right on a regular file."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode) or not info.st_mode & _GROUP_AND_OTHERS:
        return None
    return _mode_warning("the file", os.fspath(path), info.st_mode, "600")


def folder_warning(path: str | os.PathLike[str]) -> str | None:
    """The same for a folder, by the rule of `check_modes`."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    writable = bool(info.st_mode & _GROUP_AND_OTHERS_WRITE) and not info.st_mode & stat.S_ISVTX
    if not writable and (not info.st_mode & _GROUP_AND_OTHERS or not _is_dedicated_folder(os.fspath(path), info)):
        return None
    return _mode_warning(
        "the folder", os.fspath(path), info.st_mode, "go-w" if not _is_dedicated_folder(path, info) else "700"
    )


def _is_dedicated_folder(path: str | os.PathLike[str], info: os.stat_result) -> bool:
    if info.st_uid != os.geteuid() or info.st_mode & stat.S_ISVTX:
        return False
    target = os.path.realpath(path)
    return target not in (_current_folder(), os.path.realpath(os.path.expanduser("~")), "/")


def _current_folder() -> str | None:
    try:
        return os.path.realpath(os.getcwd())
    except OSError:
        return None  # it was removed


def _mode_warning(what: str, path: str, mode: int, wanted: str) -> str:
    import shlex  # here: mostly there is nothing to mend

    who = [name for name, bits in (("its group", stat.S_IRWXG), ("everybody", stat.S_IRWXO)) if mode & bits]
    return (
        f"{what} {path} has mode {stat.S_IMODE(mode):04o}, which lets {' and '.join(who)} in; "
        f"mend it with: chmod {wanted} {shlex.quote(path)}"
    )
