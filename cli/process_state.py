"""Resets the process state that a parent may have passed on: ignored or blocked signals, closed standard streams.

Called first by ``main``, before anything is opened or started.
"""

from __future__ import annotations

import os
import signal

_NEEDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGCHLD", "SIGALRM")


def reset_inherited_state() -> None:
    """Restore what this process needs: its children's exit codes, stop signals, and open standard streams."""
    # While SIGCHLD is ignored the kernel discards exit codes: a handler that failed would count as successful.
    if hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        wanted = {getattr(signal, name) for name in _NEEDED if hasattr(signal, name)}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
    # Otherwise the next file to be opened would get the closed stream's descriptor, and messages be written into it.
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor: this one
