"""File descriptors that are closed even if an exception interrupts the code that would close them.

Used by the gate, by scratch files and by the old registry's lock; imports nothing from jobdb.
"""

from __future__ import annotations

import io


class OwnedFd(io.FileIO):
    """A descriptor that is closed when it is no longer referenced.

    Locks belong to descriptors. One that is never closed would keep everybody else out as long as the process lives.

    Args:
        fd: the descriptor.
    """

    __del__ = io.FileIO.close  # C code, so no exception can interrupt it; and without a warning
