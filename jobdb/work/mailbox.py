"""The messages from everything that runs beside the dispatcher to the dispatcher, and the means to wake it.

Written by the runners, the watcher and the worker's ``drain`` and ``stop``; read by the dispatcher's thread. Any thread
may post, a signal handler too: each step is one call into C.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..system.interrupt_safe_flag import Flag

if TYPE_CHECKING:
    from ..model import NewEvent
    from .outcomes import Report
    from .slots import Key


@dataclass(frozen=True, slots=True)
class Heard:
    """An attempt has published an event."""

    key: Key
    event: NewEvent


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt's code or command has begun, in this process if it has one of its own."""

    key: Key
    pid: int | None


@dataclass(frozen=True, slots=True)
class Alive:
    """An attempt has shown a sign of life other than an event."""

    key: Key


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence about an attempt, for the log."""

    key: Key
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing of an attempt runs any more."""

    key: Key
    report: Report


Message = Heard | Running | Alive | Remark | Finished


class Mailbox:
    """The dispatcher's messages."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._wake = Flag()
        self._has_changed = True

    def post(self, message: Message) -> None:
        """Add a message and wake the dispatcher."""
        self._messages.append(message)
        self._wake.set()

    def note_change(self) -> None:
        """Tell the dispatcher that the database has changed."""
        self._has_changed = True
        self._wake.set()

    def wake(self) -> None:
        """Wake the dispatcher."""
        self._wake.set()

    def take(self) -> list[Message]:
        """Remove and return the messages, in order."""
        self._wake.clear()
        taken = []
        while self._messages:
            taken.append(self._messages.popleft())
        return taken

    def take_change(self) -> bool:
        """Return whether the database may have changed since the last call."""
        if not self._has_changed:
            return False
        self._has_changed = False  # a change that is noted right now is part of this answer
        return True

    def wait(self, timeout_sec: float) -> None:
        """Wait until somebody wakes the dispatcher, or for ``timeout_sec``."""
        self._wake.wait(timeout_sec)
