"""Names for new files: stamped with the time, numbered, and used only if they are free.

Called by backup and restore, and by the SQLite engine for a new database and a stale journal; looks at names only and
opens no file.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .permissions import JOURNAL_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def utc_timestamp() -> str:
    """Format the current time for a file name, in UTC to the second: ``20260619T093200Z``."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def numbered_names(stem: str, suffix: str = "") -> Iterator[str]:
    """Yield the names ``stem``, ``stem-2``, ``stem-3`` …, each with the suffix."""
    yield stem + suffix
    number = 2
    while True:
        yield f"{stem}-{number}{suffix}"
        number += 1


def take_first_free(names: Iterable[Path], take: Callable[[Path], object]) -> Path:
    """Take the first free name, and return it.

    Args:
        names: an endless sequence of names, as from `numbered_names`.
        take: takes a name exclusively; raises FileExistsError where it is taken.
    """
    for name in names:
        with suppress(FileExistsError):
            take(name)
            return name
    raise AssertionError("there is always another name")


def is_free(path: Path) -> bool:
    """Return whether the name is free, and those of SQLite's journals beside it."""
    return not any(os.path.lexists(f"{path}{suffix}") for suffix in ("", *JOURNAL_SUFFIXES))
