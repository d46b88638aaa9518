"""The signals of the server and of its keepers: each wakes a ``poll``, and SIGTERM is remembered.

Used by ``server.py`` and ``attempt.py``; imports only the standard library. No signal is ignored or blocked, but has a
handler: exec gives signals with a handler their default action, so that a program starts with all signals as usual,
and nothing has to be reset in a process that was just forked.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


class Signals:
    """The signals of this process.

    Attributes:
        is_told_to_end: whether SIGTERM has arrived. A forked process begins with the value at the fork.
    """

    def __init__(self) -> None:
        self.is_told_to_end = False
        self._read = self._write = -1
        self._open()

    def install(self) -> None:
        """Handle the signals of this process and of those that it forks. Call it once, in the main thread."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        special = (signal.SIGKILL, signal.SIGSTOP)
        ignored = [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]
        from_terminal = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
        for number in {*ignored, *from_terminal, signal.SIGCHLD}.difference(special):
            signal.signal(number, self._wake)
        signal.signal(signal.SIGTERM, self._end)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def separate(self) -> None:
        """Take a pipe of its own for this process, which was just forked."""
        read, write = self._read, self._write
        self._open()
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        os.close(read)
        os.close(write)

    def fileno(self) -> int:
        """Return a descriptor that is readable when a signal has arrived since `drain`."""
        return self._read

    def drain(self) -> None:
        """Forget which signals have arrived."""
        with suppress(BlockingIOError):
            os.read(self._read, 4096)

    def _open(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        """Do nothing: Python has written into the pipe."""

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.is_told_to_end = True
