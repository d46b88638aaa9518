"""The worker's side: starts the server, asks it for a keeper per attempt, and talks with the keepers.

Called by the worker; calls its siblings. No call waits for a keeper: what cannot be sent now is
sent with the next call. The worker's ends of the sockets are in no other process: they are closed on exec, and closed
in forked children. So a keeper notices the death of its worker at once, however it dies.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import weakref
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from . import frames
from .launch import Launch, encode_launch
from .messages import Activity, Blocked, Ended, Lines, Lost, Message, Started, decode_ended
from .orphans import kill_orphans
from .server_process import launch_file, send_start, start_server

_READ_BYTES = 1 << 18
_MAX_UNSENT_BYTES = 1 << 20
_CLOSE_SEC = 10.0


class Keeper:
    """One attempt's keeper, as its worker sees it. Register `fileno` for reading, and call `receive` when it is ready.

    Threads may share it. Made by `KeeperServer.start`.

    Example:
        >>> import os, select, tempfile
        >>> from jobdb.system.boot_clock import boottime
        >>> from jobdb.work.keeper.client import KeeperServer
        >>> from jobdb.work.keeper.launch import Launch
        >>> folder = tempfile.mkdtemp()
        >>> os.mkfifo(f"{folder}/events")
        >>> launch = Launch(
        ...     argv=("echo", "hello"), environment={"PATH": os.defpath}, folder=folder, stdin=None,
        ...     channel=f"{folder}/events", log=None, log_max_bytes=0, lock=f"{folder}/job.lock", mark="registry:job:1",
        ...     deadline=boottime() + 60, before=None, after=None, sweep=False,
        ... )
        >>> messages = []
        >>> with KeeperServer() as server:
        ...     keeper = server.start(launch)
        ...     while not keeper.has_ended:
        ...         readable, _, _ = select.select([keeper], [], [])
        ...         messages += keeper.receive()
        ...     keeper.close()
        >>> messages[-1].exit_code, messages[-1].tail
        (0, b'hello\\n')
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket: socket.socket | None = connection
        connection.setblocking(False)
        self._frames = frames.FrameReader()
        self._lock = threading.Lock()
        self._unsent = bytearray()
        self._pid: int | None = None
        self._has_ended = False
        _ends.add(self)

    @property
    def pid(self) -> int | None:
        """Return the keeper's process id; None until it has said it."""
        with self._lock:
            if self._pid is None and self._socket is not None:
                # Only a look: the frame stays there, so that the descriptor stays readable.
                with suppress(OSError):
                    self._note_pid(frames.FrameReader().feed(self._socket.recv(64, socket.MSG_PEEK)))
            return self._pid

    @property
    def has_ended(self) -> bool:
        """Return whether the last message was received."""
        return self._has_ended

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to receive; -1 when closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def extend(self, deadline: float) -> None:
        """Set another deadline, which has no effect if the present one has passed.

        A keeper that somebody has stopped goes on: its server sees to that, but the server may be dead.

        Args:
            deadline: seconds of `jobdb.system.boot_clock.boottime`.
        """
        self._send(frames.EXTEND, float(deadline))
        if self.pid is not None and not self.has_ended:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGCONT)

    def terminate(self, grace_sec: float) -> None:
        """Send SIGTERM to all processes of the program that runs now, and SIGKILL after the grace.

        A second call can shorten the grace. ``after`` runs then, and has to be terminated itself if it takes too long.

        Args:
            grace_sec: seconds between the two.
        """
        self._send(frames.TERMINATE, float(grace_sec))

    def kill(self) -> None:
        """Kill all processes of the program that runs now. ``after`` runs then; to prevent it, call `close`."""
        self._send(frames.KILL)

    def write_log(self, data: bytes) -> None:
        """Write into the attempt's log, of which the keeper is the only writer. Dropped if it does not read.

        Args:
            data: whole lines.
        """
        self._send(frames.LOG, data)

    def receive(self) -> list[Message]:
        """Return the messages that have arrived. The list ends with `Ended` or `Lost` once."""
        with self._lock:
            if self._socket is None or self._has_ended:
                return []
            self._flush()
            try:
                piece = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return []
            except OSError:
                piece = b""
            if not piece:
                self._has_ended = True
                return [Lost(self._pid is not None)]
            arrived = self._frames.feed(piece)
            self._note_pid(arrived)
            messages = [_decode(kind, content) for kind, content in arrived if kind != frames.HELLO]
            self._has_ended = bool(messages) and isinstance(messages[-1], Ended)
            return messages

    def close(self) -> None:
        """Close this end. If the attempt has not ended, all its processes are killed, and ``after`` does not run."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            pid = self._pid
        # The keeper of a dead server is a child of this process, if this is a subreaper.
        if pid is not None:
            with suppress(OSError):
                os.waitpid(pid, os.WNOHANG)

    def _note_pid(self, arrived: list[tuple[bytes, Any]]) -> None:
        if arrived and arrived[0][0] == frames.HELLO:
            self._pid = arrived[0][1]

    def _send(self, kind: bytes, content: object = None) -> None:
        with self._lock:
            if self._socket is not None and not self._has_ended and len(self._unsent) < _MAX_UNSENT_BYTES:
                self._unsent += frames.encode(kind, content)
                self._flush()

    def _flush(self) -> None:
        while self._unsent and self._socket is not None:
            try:
                sent = self._socket.send(self._unsent)
            except OSError:  # it does not read now, or is gone: `receive` tells
                return
            del self._unsent[:sent]


class KeeperServer:
    """The keeper server of a worker. It is started when first needed, and again if it has died.

    Threads may share it.

    Args:
        use_cgroups: whether attempts get control groups of their own where that is possible.
    """

    def __init__(self, *, use_cgroups: bool = True) -> None:
        self._use_cgroups = use_cgroups
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()
        _ends.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Start the server now, so that the first attempt does not wait for it.

        Raises:
            OSError: it cannot be started.
        """
        with self._lock:
            self._running()

    def start(self, launch: Launch) -> Keeper:
        """Let a keeper run an attempt, and return its connection.

        Args:
            launch: what to run.

        Raises:
            OSError: the server cannot be started, or there is no descriptor or memory left.
        """
        with launch_file(encode_launch(launch)) as launch_fd, self._lock:
            ours, theirs = socket.socketpair()
            try:
                self._ask([theirs.fileno(), launch_fd])
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
            keeper = Keeper(ours)
            self._keepers.add(keeper)
            return keeper

    @property
    def pid(self) -> int | None:
        """Return the server's process id; None if it was not started."""
        process = self._process
        return None if process is None else process.pid

    def kill_orphans(self, known_pids: Collection[int] = ()) -> int:
        """Kill and reap what killed keepers of a killed server have left to this process, if it is a subreaper.

        It does not wait for their end: call it again until it returns 0.

        Args:
            known_pids: other children of this process that are to live. Every child that is neither among them nor the
                server or one of its keepers is killed.

        Returns:
            how many were found alive; 1 if that cannot be told now, since a keeper has just been started.
        """
        with self._lock:
            if self._process is not None:
                self._process.poll()
            keepers = [keeper for keeper in self._keepers if keeper.fileno() >= 0]
            if any(keeper.pid is None and not keeper.has_ended and not _is_closed(keeper) for keeper in keepers):
                return 1  # one of the children may be a keeper that has not told its id yet
            known = {keeper.pid for keeper in keepers} | {self.pid}
            return kill_orphans({*known_pids, *(pid for pid in known if pid is not None)})

    def close(self) -> None:
        """Kill everything that still runs below the server, and wait for it to end, for ten seconds at most."""
        with self._lock:
            process, self._process = self._process, None
            self._close_control()
            if process is None:
                return
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_CLOSE_SEC)

    def _ask(self, descriptors: list[int]) -> None:
        """Send a message to the server, which is started if it does not run, and replaced if it does not read."""
        for is_last in (False, True):
            control = self._running()
            try:
                send_start(control, descriptors)
                return
            except OSError:
                if is_last:
                    raise
                self._abandon()

    def _running(self) -> socket.socket:
        """Return the connection to a running server."""
        process = self._process
        if process is not None and self._control is not None:
            if process.poll() is None:
                # A stopped server would take no message. It is continued without a look, which costs more.
                process.send_signal(signal.SIGCONT)
                return self._control
            self._close_control()
        self._process, self._control = start_server(use_cgroups=self._use_cgroups)
        return self._control

    def _abandon(self) -> None:
        """Kill a server that does not read; its keepers go on."""
        self._close_control()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


def _is_closed(keeper: Keeper) -> bool:
    """Return whether the other end of a keeper's connection is closed, with nothing more to be read."""
    connection = keeper._socket
    try:
        return connection is None or connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _decode(kind: bytes, content: Any) -> Message:
    if kind == frames.LINES:
        return Lines(content)
    if kind == frames.STARTED:
        return Started(content)
    if kind == frames.ACTIVITY:
        return Activity()
    if kind == frames.BLOCKED:
        return Blocked(content)
    assert kind == frames.ENDED
    return decode_ended(content)


_ends: weakref.WeakSet[Keeper | KeeperServer] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close this process's copies of the ends, in a forked child: only the worker may hold them."""
    for end in list(_ends):
        connection = end._socket if isinstance(end, Keeper) else end._control
        if connection is not None:
            connection.close()


os.register_at_fork(after_in_child=_close_in_child)
