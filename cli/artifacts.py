"""Checking that a job made the files that it should: within one folder, whatever links and dots lead elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from jobdb.errors import InvalidInput


def missing_artifacts(folder: str, expected: Iterable[str]) -> list[tuple[str, str]]:
    """Which of the expected paths are not there, each with the reason.

    A path counts only where it is, with all links followed, inside the folder with all links followed: a job cannot
    pass by pointing at a file that was there before it. It must be a regular file, or, where it is expected with a
    slash at its end, a folder.

    Args:
        folder: where they are looked for.
        expected: paths relative to it.

    Raises:
        InvalidInput: the folder is none.
    """
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise InvalidInput(f"--check-artifacts: {folder!r} is not a folder; name the one that the job worked in")
    found = ((path, _fault(root, path)) for path in expected)
    return [(path, fault) for path, fault in found if fault is not None]


def _fault(root: str, path: str) -> str | None:
    if not path or "\0" in path or os.path.isabs(path) or ".." in path.split("/"):
        return "is no relative path inside the folder"
    resolved = os.path.realpath(os.path.join(root, path))
    if os.path.commonpath((root, resolved)) != root:
        return "leads out of the folder"
    try:
        mode = os.stat(resolved).st_mode
    except OSError as problem:
        return "is not there" if isinstance(problem, FileNotFoundError) else f"cannot be seen: {problem.strerror}"
    if path.endswith("/"):
        return None if stat.S_ISDIR(mode) else "is not a folder"
    if stat.S_ISDIR(mode):
        return "is a folder, not a file"
    # A pipe, a socket or a device is there, and holds nothing that the job has made.
    return None if stat.S_ISREG(mode) else "is not a regular file"
