"""Descriptors that are closed whatever cuts off the code that was to close them."""

from __future__ import annotations

import io


class OwnedFd(io.FileIO):
    """What closes a descriptor when nothing refers to it any more.

    Locks belong to descriptors. One that an exception has cut off from whoever was to close it would keep everybody
    else out for as long as the process lives.

    Args:
        fd: the descriptor.
    """

    __del__ = io.FileIO.close  # C code: no exception can come in between; and no warning
