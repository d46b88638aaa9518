"""Keeping the WAL short: when it is copied into the database.

SQLite's own automatic checkpoint is off: it would run the whole inside the write lock. A WAL starts over when all of it
has been copied and no reader needs it any more. Source: https://sqlite.org/wal.html
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LONG_BYTES = 512 * 1024
"""Some thirty events: reading that much takes half a millisecond, copying it some milliseconds."""


def wal_is_long(database: Path) -> bool:
    """Whether whoever closes a database last should copy its WAL in any case.

    A process that opens it alone reads all of the WAL, and cannot know what an earlier one has copied of it. Were it
    left by each of them, it would never start over.
    """
    try:
        return os.stat(f"{database}-wal").st_size > _LONG_BYTES
    except OSError:
        return False


class CheckpointSchedule:
    """Decides when a commit is followed by a checkpoint.

    From ``soft_pages`` on, one is run after the gate was left, beside the other writers. It cannot finish while they
    write, so from ``hard_pages`` on one is run before the gate is left: little remains to copy then, and the next
    writer starts the WAL over.
    """

    def __init__(self, soft_pages: int, run: Callable[[], None]) -> None:
        self.pages = 0
        self.soft_pages = soft_pages
        self.hard_pages = soft_pages * 2
        self._run = run
        self._next = soft_pages

    def inside_gate(self) -> None:
        if self.pages >= self.hard_pages and self.pages >= self._next:
            self._run()
            self._next = self.pages + self.soft_pages

    def outside_gate(self) -> None:
        if self.pages < self.soft_pages:
            self._next = self.soft_pages
        elif self.pages >= self._next:
            self._run()
            self._next = self.pages + self.soft_pages // 2
