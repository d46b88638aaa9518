"""The start of a program as the agent of an attempt: own session, default signals, three descriptors.

Used by the keeper; imports only the standard library and ``jobdb.system.parent_control``. The program gets exactly the
given environment, a file or ``/dev/null`` as its input, and one pipe as output and error output. Everything else that
the keeper has open is closed by exec.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress

from ...system.parent_control import set_parent_death_signal
from .fork_into_group import fork_into_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .cgroup import AttemptGroup

_JOINED = b"g"
_FAILED = {b"c": "command", b"f": "folder"}
_EXIT_CODE = 127
_SEARCH_ON = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ESTALE)
"""Errors after which execvp(3) looks in the next folder of PATH."""


class StartError(Exception):
    """A program could not be started.

    Attributes:
        part: what is wrong: "command", "folder", "stdin", "channel", "lock" or "process".
        errno: the system's number for the reason.
        text: the reason.
    """

    def __init__(self, part: str, error: OSError | int) -> None:
        number = error if isinstance(error, int) else error.errno or errno.EIO
        super().__init__(part, number)
        self.part, self.errno, self.text = part, number, os.strerror(number)

    def fields(self) -> tuple[str, int, str]:
        """Return the part, the number and the text, to be sent to the worker."""
        return self.part, self.errno, self.text


class AgentProcess:
    """A program that was forked, and is about to be executed or is running.

    Attributes:
        pid: its process id.
        joined_group: whether it is in the attempt's control group, once `is_starting` is false.
    """

    def __init__(self, pid: int, status_fd: int) -> None:
        self.pid = pid
        self.joined_group = False
        self._status_fd = status_fd
        self._status = b""

    def fileno(self) -> int:
        """Return the descriptor that is readable when the start has succeeded or failed; -1 afterwards."""
        return self._status_fd

    def check_start(self) -> bool:
        """Return True once, when the program has begun; False while that is open, and afterwards.

        Raises:
            StartError: it could not be started. The process ends, and is still to be reaped.
        """
        if self._status_fd < 0:
            return False
        with suppress(BlockingIOError):
            while piece := os.read(self._status_fd, 64):
                self._status += piece
            os.close(self._status_fd)
            self._status_fd = -1
        if self._status_fd >= 0:
            return False
        self.joined_group = self._status.startswith(_JOINED)
        failure = self._status.removeprefix(_JOINED)
        if failure:
            raise StartError(_FAILED[failure[:1]], int(failure[1:]))
        return True


def start_agent(
    argv: list[bytes],
    environment: Mapping[bytes, bytes],
    folder: bytes,
    *,
    stdin: int,
    output: int,
    group: AttemptGroup | None,
) -> AgentProcess:
    """Fork a process that executes a program.

    Args:
        argv: the program and its arguments. Without a slash, it is searched for in the PATH of ``environment``.
        environment: all that it gets.
        folder: its current folder.
        stdin: the descriptor of its input.
        output: the descriptor of its output and error output.
        group: the control group that it is to be in, if possible.

    Raises:
        StartError: no process could be made.
    """
    try:
        status, report = os.pipe()
    except OSError as error:
        raise StartError("process", error) from error
    parent = os.getpid()
    pid = None if group is None else fork_into_group(group.folder)
    has_joined = pid is not None
    try:
        pid = os.fork() if pid is None else pid
    except OSError as error:
        os.close(status)
        os.close(report)
        raise StartError("process", error) from error
    if pid == 0:
        try:
            if has_joined or (group is not None and group.join()):
                os.write(report, _JOINED)
            _become(argv, environment, folder, (stdin, output, report), parent)
        finally:
            os._exit(_EXIT_CODE)
    os.close(report)
    os.set_blocking(status, False)
    return AgentProcess(pid, status)


def _become(
    argv: list[bytes],
    environment: Mapping[bytes, bytes],
    folder: bytes,
    descriptors: tuple[int, int, int],
    parent: int,
) -> None:
    """Turn this process, which was just forked, into the program."""
    stdin, output, report = descriptors
    part = b"f"
    try:
        os.setsid()
        set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:
            return  # it has ended before the signal was set
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        part = b"c"
        _execute(argv, environment)
    except OSError as error:
        os.write(report, part + b"%d" % (error.errno or errno.EIO))
    except ValueError:  # a zero byte in a string
        os.write(report, part + b"%d" % errno.EINVAL)


def _execute(argv: list[bytes], environment: Mapping[bytes, bytes]) -> None:
    """Execute a program as execvp(3) does, in the PATH of its own environment."""
    if not argv or not argv[0]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    failure: OSError | None = None
    for path in _candidates(argv[0], environment):
        try:
            _execute_file(path, argv, environment)
        except OSError as error:
            if error.errno not in _SEARCH_ON:
                raise
            if failure is None or error.errno == errno.EACCES:
                failure = error
    raise failure or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _candidates(name: bytes, environment: Mapping[bytes, bytes]) -> Iterable[bytes]:
    if b"/" in name:
        return [name]
    folders = environment.get(b"PATH", os.fsencode(os.defpath)).split(b":")
    return [os.path.join(folder, name) for folder in folders]


def _execute_file(path: bytes, argv: list[bytes], environment: Mapping[bytes, bytes]) -> None:
    try:
        os.execve(path, argv, environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # A script without an interpreter line is the shell's.
    os.execve(b"/bin/sh", [b"sh", path, *argv[1:]], environment)
