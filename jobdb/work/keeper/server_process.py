"""The process of the keeper server, as its worker starts it and speaks to it.

Called by ``client.py``; calls ``jobdb.system``.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...system.isolated_python import isolated_command
from . import frames

_SEND_SEC = 5.0
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LD_PRELOAD")
_PROGRAM = """\
# The keeper server of jobdb: it ends the processes of jobs whose worker is gone.
package = type(sys)
for name in ("jobdb", "jobdb.system", "jobdb.work"):
    module = sys.modules[name] = package(name)
    module.__path__ = [sys.argv[1] + name.removeprefix("jobdb").replace(".", "/")]
from jobdb.work.keeper.server import main
main(int(sys.argv[2]), use_cgroups=sys.argv[3] == "1")
"""
"""The packages above are empty here: what their ``__init__`` would import has no place in this process."""


def start_server(*, use_cgroups: bool) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a keeper server; return its process and the connection to it, which is in no other process.

    Args:
        use_cgroups: whether attempts get control groups of their own where that is possible.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            _server_command(theirs.fileno(), use_cgroups),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            cwd="/",
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    return process, ours


@contextmanager
def launch_file(content: bytes) -> Iterator[int]:
    """Open a file without a name that has this content; whoever is given the descriptor can read it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("jobdb-launch")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        yield fd
    finally:
        os.close(fd)


def send_start(control: socket.socket, descriptors: list[int]) -> None:
    """Send a message, and wait a while if the server does not read.

    Raises:
        OSError: the server is gone, or has not read for that long.
    """
    deadline = time.monotonic() + _SEND_SEC
    while True:
        try:
            socket.send_fds(control, [frames.START], descriptors)
            return
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            poll = select.poll()
            poll.register(control, select.POLLOUT)
            poll.poll(left * 1000)


def _server_command(control_fd: int, use_cgroups: bool) -> list[str]:
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = isolated_command(_PROGRAM, folder, str(control_fd), str(int(use_cgroups)))
    # It needs no installed package; without them, it starts in half the time, and is smaller.
    return [command[0], "-S", *command[1:]]
