"""Safe reading of files that others may write: only regular files, only up to a size, without following links.

Called by the reader of source jobs, the importer and the exporter. A pipe named ``x.json`` must not hang an import, and
the lines of another user's file must not be imported, or overwritten, through a log that is a link to it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from ..format.damage import Damaged, DamageKind

_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
_FOLDER_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
LINK_DAMAGE = Damaged(
    DamageKind.LINK, "it is a link, and links in a registry are not followed; put the file itself there"
)
"""The damage of a link, whatever it points to."""


def open_folder(path: str, *, dir_fd: int | None = None) -> int | Damaged | None:
    """Return a descriptor of a folder that is not a link, for opening its files.

    Args:
        path: the folder.
        dir_fd: a descriptor of the folder that the path is relative to; None for the current one.

    Returns:
        The descriptor, for the caller to close; or why it cannot be opened; or None if no such folder exists. Never
        raises OSError.
    """
    try:
        return os.open(path, _FOLDER_FLAGS, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        with suppress(OSError):
            if stat.S_ISLNK(os.lstat(path, dir_fd=dir_fd).st_mode):
                return LINK_DAMAGE
        return None if error.errno == errno.ENOTDIR else _read_damage(path, error)


def read_regular_file(path: str, limit: int, *, dir_fd: int | None = None) -> bytes | Damaged | None:
    """Return the content of a regular file, without following a link.

    Args:
        path: the file.
        limit: the most bytes to read; a larger file is `DamageKind.TOO_LARGE`.
        dir_fd: a descriptor of the folder that the path is relative to; None for the current one.

    Returns:
        The content; or why it cannot be read; or None if no such file exists. Never raises OSError.
    """
    try:
        fd = os.open(path, _READ_FLAGS, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            return _link_damage(path, dir_fd)
        return _read_damage(path, error) if dir_fd is None else _unreadable_file(error)
    try:
        size = os.fstat(fd)
        if not stat.S_ISREG(size.st_mode):
            return Damaged(DamageKind.NOT_A_FILE, f"it is {_kind_of(size.st_mode)}, not a file")
        if size.st_size > limit:
            return Damaged(DamageKind.TOO_LARGE, f"it has {size.st_size:,} bytes; at most {limit:,} are read")
        content = os.read(fd, size.st_size + 1)
        if len(content) != size.st_size:
            content += _read_appended(fd, limit)
        return content
    except OSError as error:
        return _read_damage(path, error)
    finally:
        os.close(fd)


def _read_appended(fd: int, limit: int) -> bytes:
    """Return a file's content beyond its initial size, for a log that is being appended to."""
    parts = []
    total = 0
    while total <= limit:
        part = os.read(fd, 1 << 16)
        if not part:
            break
        parts.append(part)
        total += len(part)
    return b"".join(parts)


def _link_damage(path: str, dir_fd: int | None) -> Damaged:
    """Return the damage of a link, which says whether it is dangling; its target is not read."""
    try:
        os.stat(path, dir_fd=dir_fd)
    except FileNotFoundError:
        return Damaged(DamageKind.DANGLING_LINK, "it is a dangling link")
    except OSError:
        pass
    return LINK_DAMAGE


def _read_damage(path: str, error: OSError | ValueError) -> Damaged:
    if os.path.isdir(path):
        return Damaged(DamageKind.NOT_A_FILE, "it is a folder, not a file")
    return _unreadable_file(error)


def _unreadable_file(error: OSError | ValueError) -> Damaged:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return Damaged(DamageKind.UNREADABLE, f"it cannot be read: {reason}")


def _kind_of(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"
