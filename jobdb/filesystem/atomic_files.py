"""Giving a finished file its name: exclusively, or in exchange for the file that stands there.

Called by backup, restore, migrate and export, and where a database is trusted. A file is built under a name of its own
beside its target (`ScratchFile`, `write_file`); its final name is taken with one system call, so at every moment the
name stands for a whole file. Linux can rename without replacing, and exchange two names (renameat2); where the file
system cannot, hard links serve.
Source: https://man7.org/linux/man-pages/man2/rename.2.html
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
"""Errors that say: this file system cannot do it."""


def rename_noreplace(source: Path, target: Path) -> None:
    """Rename a file to a name that nothing has.

    Raises:
        FileExistsError: something of that name is there, a dangling link included.
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
        # No hard links either: an empty file holds the name.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            os.rename(source, target)
        except OSError:
            os.unlink(target)
            raise
    else:
        os.unlink(source)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step.

    Returns:
        False, with nothing done, when the file system cannot do that.
    """
    try:
        _renameat2(one, other, _EXCHANGE)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def write_file(path: Path, content: bytes, *, follow_folder_link: bool = False) -> None:
    """Write a file of mode 0600 in one step: beside its place, synced, then renamed; the name is not synced.

    The file beside it is one that nobody else can have made, and both are found in the folder as it is when it is
    opened: nothing is written through a link, and nothing into a file that is known by another name too.

    Args:
        path: the file.
        content: what it is to hold.
        follow_folder_link: its folder may be a link: it is the one that was named.

    Raises:
        OSError: it could not be written; what was there before is still there.
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
    import ctypes  # here, as below: who only opens a registry names no file

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    old, new = os.fsencode(source), os.fsencode(target)
    if function(_AT_FDCWD, ctypes.c_char_p(old), _AT_FDCWD, ctypes.c_char_p(new), ctypes.c_uint(flags)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))
