"""The keeper server: forks a keeper per attempt, and kills what killed keepers leave behind.

Started by ``client.py`` as a process of its own (`main`); imports only the standard library and, like its siblings, two
modules of ``jobdb.system``. One thread, no lock, nothing open but a few descriptors: forking it is cheap and safe. It
reads one-byte messages, each with two descriptors (the keeper's end of a socket pair, and a file with the launch), from
the worker. When the worker closes its end, or dies, all keepers are told to end, and the server ends after them.
"""

from __future__ import annotations

import array
import gc
import marshal
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress

from ...system.parent_control import set_child_subreaper, set_process_name
from . import frames
from .agent_process import StartError
from .attempt import Attempt, empty_report
from .cgroup import AttemptGroup, find_parent_group, remove_abandoned_groups
from .job_lock import own_place
from .process_tree import children_of, stop_and_kill, with_descendants
from .signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .process_tree import Process, Processes

_FIRST_PAUSE_SEC, _LONGEST_PAUSE_SEC = 0.001, 1.0
_FAILED = 70  # EX_SOFTWARE


class _Keeper:
    """A keeper that was forked.

    Attributes:
        lock: a copy of the descriptor of its job's lock; -1 until it has one.
        group: the folder of its attempt's control group; empty if there is none.
    """

    __slots__ = ("group", "lock")

    def __init__(self) -> None:
        self.lock, self.group = -1, b""


class Server:
    """The server's state.

    Args:
        control: the connection to the worker.
        use_cgroups: whether attempts get control groups of their own where that is possible.
    """

    def __init__(self, control: socket.socket, *, use_cgroups: bool) -> None:
        self._control: socket.socket | None = control
        self._is_subreaper = set_child_subreaper()
        self._parent_group = find_parent_group() if use_cgroups else None
        self._signals = Signals()
        self._signals.install()
        self._notes, self._note_writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notes.setblocking(False)
        self._keepers: dict[int, _Keeper] = {}
        self._killed: list[_Keeper] = []
        """The keepers that were killed, whose orphans may still be alive."""
        self._pause = 0.0
        self._kill_at = 0.0
        if self._parent_group is not None:
            remove_abandoned_groups(self._parent_group)
        own_place()

    def run(self) -> None:
        """Serve until the worker is gone and nothing is left."""
        while self._control is not None or self._keepers or self._killed:
            poll = select.poll()
            poll.register(self._signals, select.POLLIN)
            poll.register(self._notes, select.POLLIN)
            if self._control is not None:
                poll.register(self._control, select.POLLIN)
            pause = None if not self._killed else max(0.0, self._kill_at - time.monotonic())
            ready = {fd for fd, _ in poll.poll(None if pause is None else pause * 1000 + 1)}
            if self._signals.fileno() in ready:
                self._signals.drain()
                if self._signals.is_told_to_end:
                    self._end()
            # Before the keepers are reaped: a note may be the last that one of them has sent.
            if self._notes.fileno() in ready:
                self._read_notes()
            self._reap()
            if self._killed and time.monotonic() >= self._kill_at:
                self._kill_orphans()
            if self._control is not None and self._control.fileno() in ready:
                self._receive()

    def _receive(self) -> None:
        """Take one message."""
        assert self._control is not None
        space = socket.CMSG_SPACE(2 * array.array("i").itemsize)
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            data, ancillary, _, _ = self._control.recvmsg(1, space, flags)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        descriptors = _descriptors(ancillary)
        if data == frames.START and len(descriptors) == 2:
            self._start(*descriptors)
            return
        # Without its descriptors, of which this process had no room for more, the worker sees its end closed.
        for fd in descriptors:
            os.close(fd)
        if not data:
            self._end()

    def _start(self, worker_fd: int, launch_fd: int) -> None:
        """Fork a keeper."""
        worker = socket.socket(fileno=worker_fd)
        try:
            pid = os.fork()
        except OSError as error:
            _report_start_error(worker, StartError("process", error))
            pid = -1
        if pid == 0:
            self._keep(worker, launch_fd)
        if pid > 0:
            self._keepers[pid] = _Keeper()
        worker.close()
        os.close(launch_fd)

    def _keep(self, worker: socket.socket, launch_fd: int) -> None:
        """Be a keeper, and end with it; in a process just forked."""
        code = _FAILED
        attempt: Attempt | None = None
        try:
            self._signals.separate()
            os.setsid()
            set_process_name(b"jobdb-keeper")
            if self._control is not None:
                self._control.close()
            self._notes.close()
            for keeper in (*self._keepers.values(), *self._killed):
                if keeper.lock >= 0:
                    os.close(keeper.lock)
            is_subreaper = set_child_subreaper()
            attempt = Attempt(
                _read_launch(launch_fd),
                worker,
                signals=self._signals,
                parent_group=self._parent_group,
                is_subreaper=is_subreaper,
                share_lock=self._share_lock,
            )
            attempt.run()
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
            if attempt is not None:
                attempt.kill()
        finally:
            os._exit(code)

    def _share_lock(self, fd: int, group: bytes) -> None:
        """Send the server a copy of a lock's descriptor; from a keeper."""
        content = marshal.dumps((os.getpid(), group))
        with suppress(OSError):  # the server is gone
            socket.send_fds(self._note_writer, [content], [fd])

    def _read_notes(self) -> None:
        while True:
            try:
                content, descriptors, _, _ = socket.recv_fds(self._notes, 8192, 1)
            except OSError:
                return
            pid, group = marshal.loads(content)
            keeper = self._keepers.get(pid)
            if keeper is None or not descriptors:
                for fd in descriptors:
                    os.close(fd)
                continue
            os.set_inheritable(descriptors[0], False)
            keeper.lock, keeper.group = descriptors[0], group

    def _reap(self) -> None:
        """Reap what has ended, and continue keepers that were stopped: theirs is the deadline."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                if pid in self._keepers:
                    os.kill(pid, signal.SIGCONT)
                continue
            keeper = self._keepers.pop(pid, None)
            if keeper is None:
                continue
            if status == 0:
                _release(keeper)
            else:
                self._killed.append(keeper)
                self._pause = self._kill_at = 0.0

    def _kill_orphans(self) -> None:
        """Kill the children that are not keepers; give the locks of killed keepers up when there are none."""
        for keeper in self._killed:
            if keeper.group:
                AttemptGroup(keeper.group).kill()
        is_done = False
        with suppress(OSError):  # the system is short of descriptors: look again later
            found = stop_and_kill(self._find_orphans, groups=True)
            self._reap()
            is_done = not found and not set(children_of(os.getpid())) - self._keepers.keys()
        if is_done:
            for keeper in self._killed:
                if keeper.group:
                    AttemptGroup(keeper.group).remove()
                _release(keeper)
            self._killed.clear()
            return
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE_SEC), _LONGEST_PAUSE_SEC)
        self._kill_at = time.monotonic() + self._pause

    def _find_orphans(self, visit: Callable[[Process], object]) -> Processes:
        return with_descendants(children_of(os.getpid()), self._keepers, visit)

    def _end(self) -> None:
        """Take no more messages, and tell all keepers to end."""
        if self._control is not None:
            self._control.close()
            self._control = None
        for pid in self._keepers:
            os.kill(pid, signal.SIGTERM)


def main(control_fd: int, *, use_cgroups: bool) -> None:
    """Run the server.

    Args:
        control_fd: the inherited descriptor of the connection to the worker.
        use_cgroups: as in `Server`.
    """
    os.set_inheritable(control_fd, False)
    control = socket.socket(fileno=control_fd)
    control.setblocking(False)
    set_process_name(b"jobdb-keepers")
    server = Server(control, use_cgroups=use_cgroups)
    # No cycles are made that would matter, and a collection in a forked process would copy most of its memory.
    gc.disable()
    gc.freeze()
    server.run()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    for fd in found:
        os.set_inheritable(fd, False)
    return list(found)


def _read_launch(fd: int) -> dict[str, object]:
    size = os.fstat(fd).st_size
    pieces = []
    position = 0
    while position < size:
        pieces.append(os.pread(fd, size - position, position))
        position += len(pieces[-1])
    os.close(fd)
    found: dict[str, object] = marshal.loads(b"".join(pieces))
    return found


def _report_start_error(worker: socket.socket, error: StartError) -> None:
    with suppress(OSError):
        worker.setblocking(False)
        worker.send(frames.encode(frames.ENDED, {**empty_report("run"), "start_error": error.fields()}))


def _release(keeper: _Keeper) -> None:
    if keeper.lock >= 0:
        os.close(keeper.lock)
        keeper.lock = -1
