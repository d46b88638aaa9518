"""The inputs of a keeper: commands, signals, its deadline, the agent's output, and lines of its channel.

Used by ``attempt.py``; imports only the standard library and ``jobdb.system.boot_clock``. One call of `KeeperIO.wait`
is one ``poll`` and the handling of what it finds. Nothing here blocks but that, and nothing grows without limit: when
the worker does not read, the channel is not read either, so that its writers wait.
"""

from __future__ import annotations

import math
import os
import select
import stat
import time
from contextlib import suppress

from ...system.boot_clock import BootTimer, boottime
from . import frames
from .agent_process import StartError
from .capped_log import CappedLog
from .channel_lines import LineBuffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

    from .signals import Signals

_READ_BYTES = 65536
_MAX_UNSENT_BYTES = 1 << 20
_ACTIVITY_SEC = 1.0
_READ_INTERVAL_SEC = 0.01
"""The pause after a read of an agent that writes little at a time, so that its pieces are read together."""
_DRAIN_BYTES = 4 << 20
_LONGEST_WAIT_SEC = 3600.0
"""The longest wait: the argument of `poll` is limited, and a wait is repeated anyway."""
_LAST_WORDS_SEC = 2.0


class KeeperIO:
    """A keeper's descriptors, and what has arrived on them.

    Args:
        worker: the keeper's end of the socket pair.
        signals: this process's signals.
        deadline: when the lease ends, in seconds of the boot clock.

    Attributes:
        is_worker_gone: whether the worker's end is closed.
        is_expired: whether the deadline has passed.
        kill_asked: whether KILL arrived since `forget_requests`.
        grace: the grace of the last TERMINATE since then, in seconds; None if there was none.
        log: the attempt's log; one without a file until it is set.
    """

    def __init__(self, worker: socket, signals: Signals, deadline: float) -> None:
        self.is_worker_gone = self.is_expired = self.kill_asked = False
        self.grace: float | None = None
        self.log = CappedLog(None, 0)
        self._worker = worker
        self._worker.setblocking(False)
        self._frames = frames.FrameReader()
        self._unsent = bytearray()
        self._signals = signals
        self._deadline = deadline
        self._timer = BootTimer()
        self._timer.set(deadline)
        self._lines = LineBuffer()
        self._output = self._channel = self.output_writer = -1
        self._output_due = self._channel_due = self._activity_due = 0.0

    def open_output(self) -> None:
        """Make the pipe for the programs' output; its other end is ``output_writer``.

        Raises:
            StartError: the system has no room for it.
        """
        try:
            self._output, self.output_writer = os.pipe()
        except OSError as error:
            raise StartError("process", error) from error
        os.set_blocking(self._output, False)

    def open_channel(self, path: bytes) -> None:
        """Open the FIFO of the channel, for reading and writing, so that it has no end when its writers close it.

        Raises:
            StartError: it is missing, or no FIFO.
        """
        try:
            self._channel = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise StartError("channel", error) from error
        if not stat.S_ISFIFO(os.fstat(self._channel).st_mode):
            raise StartError("channel", FileExistsError(17, "not a FIFO"))

    def forget_requests(self) -> None:
        """Forget what the worker has asked for: it was for the program that ran until now."""
        self.kill_asked, self.grace = False, None

    def send(self, kind: bytes, content: object = None) -> None:
        """Send a frame, now or when the worker reads again."""
        if not self.is_worker_gone:
            self._unsent += frames.encode(kind, content)
            self._flush()

    def is_claim_lost(self) -> bool:
        """Return whether the job is not this worker's any more, or soon will not be."""
        self.is_expired = self.is_expired or boottime() >= self._deadline
        return self.is_worker_gone or self.is_expired or self._signals.is_told_to_end

    def stop_cause(self) -> str | None:
        """Return why everything is to be killed now; None if it is not."""
        if self.is_claim_lost():
            return "deadline" if self.is_expired else "killed"
        return "killed" if self.kill_asked else None

    def wait(self, until: float | None = None, start: int = -1) -> None:
        """Wait for something to happen, and handle it.

        Args:
            until: how long at most, a monotonic time; None for no limit.
            start: a descriptor whose readability ends the wait, too; -1 for none. As long as a program's start is
                awaited, output and lines are not read: the worker learns of the start first.
        """
        now = time.monotonic()
        limits = [until] if until is not None else []
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        if not self.is_worker_gone:
            poll.register(self._worker, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if start >= 0:
            poll.register(start, select.POLLIN)
        for fd, due in ((self._output, self._output_due), (self._channel, self._channel_due)):
            if fd < 0 or start >= 0 or (fd == self._channel and len(self._unsent) > _MAX_UNSENT_BYTES):
                continue
            if due <= now:
                poll.register(fd, select.POLLIN)
            else:
                limits.append(due)
        if not self.is_expired:
            if self._timer.fileno() >= 0:
                poll.register(self._timer, select.POLLIN)
            longest = self._timer.longest_wait(self._deadline)
            if longest is not None:
                limits.append(now + longest)
        log_due = self.log.write_due_in(now)
        if log_due is not None:
            limits.append(now + log_due)
        timeout = math.ceil(min(max(0.0, min(limits) - now), _LONGEST_WAIT_SEC) * 1000) if limits else None
        ready = {fd for fd, _ in poll.poll(timeout)}
        self._handle(ready, time.monotonic())

    def drain(self) -> None:
        """Read what is left in the pipes, when no process of the attempt is alive."""
        now = time.monotonic()
        for _ in range(_DRAIN_BYTES // _READ_BYTES):
            if self._output < 0 or not self._read_output(now):
                break
        for _ in range(_DRAIN_BYTES // _READ_BYTES):
            if self._channel < 0 or not self._read_channel(now):
                break
        last = self._lines.finish()
        if last:
            self.send(frames.LINES, last)

    def finish(self, ended: dict[str, object]) -> None:
        """Send the last frame, and wait until the worker has it or is gone, or a while if this process is to end."""
        self.send(frames.ENDED, ended)
        for fd in (self._output, self._channel):
            if fd >= 0:
                os.close(fd)
        self._output = self._channel = -1
        begun = time.monotonic()
        while self._unsent and not self.is_worker_gone:
            if self._signals.is_told_to_end and time.monotonic() - begun > _LAST_WORDS_SEC:
                break
            self.wait(time.monotonic() + _LAST_WORDS_SEC if self._signals.is_told_to_end else None)

    def _handle(self, ready: set[int], now: float) -> None:
        if not self.is_worker_gone and self._worker.fileno() in ready:
            self._receive()
            self._flush()
        if self._signals.fileno() in ready:
            self._signals.drain()
        if self._output in ready:
            self._read_output(now)
        if self._channel in ready:
            self._read_channel(now)
        self.is_claim_lost()
        if self.log.write_due_in(now) == 0:
            self.log.write_last_part(now)

    def _receive(self) -> None:
        try:
            piece = self._worker.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self.is_worker_gone = True
            self._unsent.clear()
        for kind, content in self._frames.feed(piece):
            if kind == frames.EXTEND and not self.is_expired:
                assert isinstance(content, float)
                self._deadline = content
                self._timer.set(content)
            elif kind == frames.TERMINATE:
                assert isinstance(content, float)
                self.grace = content
            elif kind == frames.KILL:
                self.kill_asked = True
            elif kind == frames.LOG:
                assert isinstance(content, bytes)
                self.log.write(content)

    def _flush(self) -> None:
        while self._unsent and not self.is_worker_gone:
            try:
                sent = self._worker.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                self.is_worker_gone = True
                self._unsent.clear()
                return
            del self._unsent[:sent]

    def _read_output(self, now: float) -> bool:
        piece = _read(self._output)
        if piece:
            self.log.write(piece)
            if now >= self._activity_due and len(self._unsent) < _MAX_UNSENT_BYTES:
                self._activity_due = now + _ACTIVITY_SEC
                self.send(frames.ACTIVITY)
        self._output_due = now if len(piece) >= _READ_BYTES // 2 else now + _READ_INTERVAL_SEC
        return bool(piece)

    def _read_channel(self, now: float) -> bool:
        piece = _read(self._channel)
        lines = self._lines.feed(piece) if piece else b""
        if lines:
            self.send(frames.LINES, lines)
        self._channel_due = now if len(piece) >= _READ_BYTES // 2 else now + _READ_INTERVAL_SEC
        return bool(piece)


def _read(fd: int) -> bytes:
    with suppress(OSError):
        return os.read(fd, _READ_BYTES)
    return b""
