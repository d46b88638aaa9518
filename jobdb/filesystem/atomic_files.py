"""Atomic operations on file names: rename without replacing, exchange, write a whole file.

Called by backup, restore, migrate and export, and where a database is trusted. A file is built under a temporary name
beside its target (`scratch_file`, `write_file`) and gets its final name by one system call, so the name always leads to
a complete file. Linux can rename without replacing, and exchange two names (renameat2); if the file system cannot,
hard links are used. Source: https://man7.org/linux/man-pages/man2/rename.2.html
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

_NOREPLACE, _EXCHANGE = 1, 2
_AT_FDCWD = -100
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
"""The errors by which a file system reports that it does not support an operation."""


def rename_noreplace(source: Path, target: Path) -> None:
    """Rename a file to a name that is free.

    Raises:
        FileExistsError: the name is taken, even if only by a dangling link.
        OSError: it cannot be renamed.
    """
    try:
        _renameat2(source, target, _NOREPLACE)
        return
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        # There are no hard links either: an empty file reserves the name.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            os.rename(source, target)
        except OSError:
            os.unlink(target)
            raise
    else:
        os.unlink(source)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically.

    Returns:
        False, with nothing done, if the file system does not support it.
    """
    try:
        _renameat2(one, other, _EXCHANGE)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def write_file(path: Path, content: bytes, *, follow_folder_link: bool = False) -> None:
    """Write a file of mode 0600 atomically: to a temporary file, which is synced and then renamed.

    The new name is not synced. Nobody else can have created the temporary file, and both names are resolved in the
    folder that was opened first: so nothing is written through a link, or into a file that has another name.

    Args:
        path: the file.
        content: its new content.
        follow_folder_link: accept a symbolic link as its folder.

    Raises:
        OSError: it could not be written; the previous file is unchanged.
    """
    import secrets

    follow = 0 if follow_folder_link else os.O_NOFOLLOW
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)
    try:
        temporary = f".{path.name}.{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            try:
                os.fchmod(fd, 0o600)
                view = memoryview(content)
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
    finally:
        os.close(folder)


def _renameat2(source: Path, target: Path, flags: int) -> None:
    import ctypes  # imported here: opening a registry renames nothing

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    old, new = os.fsencode(source), os.fsencode(target)
    if function(_AT_FDCWD, ctypes.c_char_p(old), _AT_FDCWD, ctypes.c_char_p(new), ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))
