"""File descriptors that are closed even if an exception cuts off the code that was to close them."""

from __future__ import annotations

import io


class OwnedFd(io.FileIO):
    """A descriptor that is closed when nothing refers to it any more.

    Locks belong to descriptors. One that nobody is left to close would keep everybody else out for as long as the
    process lives.

    Args:
        fd: the descriptor.
    """

    __del__ = io.FileIO.close  # C code: no exception can come in between; and no warning
