"""A fork whose child begins in a control group, by clone3(2).

Used by ``agent_process.py``; imports only the standard library. To move a process that runs already, the kernel waits
until every processor has passed a quiet moment, ten milliseconds on an idle machine, and holds up all other forks
meanwhile. A child that begins in its group costs nothing of this.

`os.fork` does more than the system call: it takes Python's locks, and in the child it makes new ones and forgets other
threads. A keeper has one thread, which holds them all, so the child may go on with copies of them; it does little but
execute another program.
"""

from __future__ import annotations

import array
import ctypes
import os
import signal
import sys

_SYS_CLONE3 = 435
"""The number is that of all processors but Alpha."""
_CLONE_INTO_CGROUP = 0x200000000
_EXIT_SIGNAL, _CGROUP, _FIELDS = 4, 10, 11
"""The places of two fields of ``struct clone_args``, and their number."""


def fork_into_group(folder: bytes) -> int | None:
    """Fork, as `os.fork` does, with a child that begins in a control group.

    Call it from a process that never had a second thread.

    Args:
        folder: the group's.

    Returns:
        the child's process id, in the child 0; None if there is no child, since this system or group does not allow it.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    arguments = array.array("Q", [0] * _FIELDS)
    arguments[0] = _CLONE_INTO_CGROUP
    arguments[_EXIT_SIGNAL] = signal.SIGCHLD
    arguments[_CGROUP] = fd
    address, _ = arguments.buffer_info()
    size = arguments.itemsize * len(arguments)
    try:
        pid = int(_syscall(ctypes.c_long(_SYS_CLONE3), ctypes.c_void_p(address), ctypes.c_size_t(size)))
    except OSError:
        pid = -1
    os.close(fd)
    return None if pid < 0 else pid


# PyDLL keeps the interpreter's lock during the call, so that the child has it, too.
_syscall = ctypes.PyDLL(None).syscall
_syscall.restype = ctypes.c_long
