"""The files that a job was expected to create: whether they are inside its folder, and their digests.

Called by the worker when an attempt has ended, and by ``wait --check-artifacts``. A path is opened once, without
reading it, and what was opened is examined: a link or a file that is exchanged meanwhile cannot pass a check that was
made of another. Devices, pipes and sockets are never opened for reading.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput

DIGEST_BYTES = 16 * 2**30
"""The number of bytes of an attempt's files that are read for digests; further files have none."""

MAX_ENTRIES = 100_000
"""The number of entries of a folder that are counted."""

_PIECE_BYTES = 1 << 20
_O_PATH = getattr(os, "O_PATH", 0)
"""Linux: opens a name without opening what it stands for, so that neither a device nor a pipe notices."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The expected files of a job.

    Attributes:
        found: JSON-ready facts by path. A file has ``sha256``, in hex, and ``bytes``; ``sha256`` is None if the file
            cannot be read or the files are too large. A folder has the number of ``files`` below it and their
            ``bytes``, and ``more`` if it has too many to count.
        missing: the other paths, each with the reason.
    """

    found: dict[str, dict[str, Any]]
    missing: list[tuple[str, str]]


def examine_artifacts(folder: str, expected: Iterable[str], *, digest_bytes: int = DIGEST_BYTES) -> Artifacts:
    """Return which expected files there are, with their digests, and which are missing.

    A path counts only when it is inside the folder after all symbolic links are resolved: a job cannot pass by linking
    to a file that existed before it. It must be a regular file, or, when its name ends in a slash, a folder.

    Args:
        folder: where to look for the files.
        expected: paths relative to the folder.
        digest_bytes: how many bytes to read in all.

    Raises:
        InvalidInput: the folder is not a folder.
    """
    root = _root(folder)
    found: dict[str, dict[str, Any]] = {}
    missing = []
    for path in dict.fromkeys(expected):
        opened = _open(root, path)
        if isinstance(opened, str):
            missing.append((path, opened))
            continue
        with closing(opened):
            if path.endswith("/"):
                found[path] = _folder_facts(opened.path)
            else:
                found[path] = opened.digest(digest_bytes)
                if found[path]["sha256"] is not None:
                    digest_bytes -= found[path]["bytes"]
    return Artifacts(found, missing)


def missing_artifacts(folder: str, expected: Iterable[str]) -> list[tuple[str, str]]:
    """Return the expected paths that are missing, each with the reason; see :func:`examine_artifacts`.

    Raises:
        InvalidInput: the folder is not a folder.
    """
    root = _root(folder)
    missing = []
    for path in expected:
        opened = _open(root, path)
        if isinstance(opened, str):
            missing.append((path, opened))
        else:
            opened.close()
    return missing


class _Opened:
    """A regular file or a folder inside the root: a descriptor with which it cannot be exchanged, and its real path."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    def close(self) -> None:
        os.close(self._fd)

    def digest(self, most: int) -> dict[str, Any]:
        """Return the digest and the size of the file."""
        size = os.fstat(self._fd).st_size
        if size > most:
            return {"sha256": None, "bytes": size}
        try:
            # The same file again, now to be read. It is a regular one; O_NONBLOCK is for a lease that is held on it.
            name = f"/proc/self/fd/{self._fd}" if _O_PATH else self.path
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return {"sha256": None, "bytes": size}
        try:
            digest, read = hashlib.sha256(), 0
            while read <= most and (piece := os.read(fd, _PIECE_BYTES)):
                digest.update(piece)
                read += len(piece)
        except OSError:
            return {"sha256": None, "bytes": size}
        finally:
            os.close(fd)
        return {"sha256": digest.hexdigest() if read <= most else None, "bytes": read}


def _root(folder: str) -> str:
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise InvalidInput(f"{folder!r} is not a folder", advice="name the folder that the job worked in")
    return root


def _open(root: str, path: str) -> _Opened | str:
    """Open an expected path, or return why it is missing."""
    if not path or "\0" in path or os.path.isabs(path) or ".." in path.split("/"):
        return "is not a relative path inside the folder"
    joined = os.path.join(root, path)
    try:
        if not _is_inside(root, os.path.realpath(joined)):
            return "leads out of the folder"
        fd = _open_name(joined)
    except OSError as error:
        return "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    try:
        real = _real_path(fd, joined)
        if real is None:
            fault = "does not exist"  # removed or replaced since it was opened
        elif not _is_inside(root, real):
            fault = "leads out of the folder"
        else:
            fault = _kind_fault(os.fstat(fd).st_mode, is_folder=path.endswith("/"))
            if not fault:
                return _Opened(fd, real)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return fault


def _kind_fault(mode: int, *, is_folder: bool) -> str:
    if is_folder:
        return "" if stat.S_ISDIR(mode) else "is not a folder"
    if stat.S_ISDIR(mode):
        return "is a folder, not a file"
    # A pipe, a socket or a device holds nothing that the job has created.
    return "" if stat.S_ISREG(mode) else "is not a regular file"


def _open_name(path: str) -> int:
    if _O_PATH:
        return os.open(path, _O_PATH | os.O_CLOEXEC)
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _real_path(fd: int, joined: str) -> str | None:
    """Return where an open file is now; None if it is gone."""
    try:
        real = os.readlink(f"/proc/self/fd/{fd}") if _O_PATH else os.path.realpath(joined)
        there, opened = os.stat(real, follow_symlinks=False), os.fstat(fd)
    except OSError:
        return None
    return real if (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino) else None


def _is_inside(root: str, path: str) -> bool:
    return os.path.commonpath((root, path)) == root


def _folder_facts(folder: str) -> dict[str, Any]:
    """Count the files below a folder and their bytes; links are not followed, and what cannot be read is skipped."""
    files = size = entries = 0
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as listing:
                for entry in listing:
                    entries += 1
                    if entries > MAX_ENTRIES:
                        return {"files": files, "bytes": size, "more": True}
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        with suppress(FileNotFoundError):  # removed since it was listed
                            size += entry.stat(follow_symlinks=False).st_size
                            files += 1
        except OSError:
            continue
    return {"files": files, "bytes": size}
