"""What the command takes over from whoever started it, put in order before anything is opened or started.

Called first by ``main``. Parents hand on what their children cannot know of: ignored and blocked signals, and closed
standard streams.
"""

from __future__ import annotations

import os
import signal

_NEEDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGCHLD", "SIGALRM")


def reset_inherited_state() -> None:
    """Restore what this process needs: to learn how its children end, to be stopped, to keep its standard streams."""
    # Ignored, the kernel forgets how children end, and a handler that failed would count as done.
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        wanted = {getattr(signal, name) for name in _NEEDED if hasattr(signal, name)}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
    # The next file to be opened would be the standard stream that is closed, and a message would be written into it.
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
