"""The finding, stopping and killing of processes and of what they have started.

Used by a keeper for its agent, by the server and the worker for orphans, and by the sweep before an attempt; imports
only the standard library.

A tree is killed in two steps. All of it is stopped first: a process that has a signal pending cannot fork any more, so
when a look at the tree finds nothing new, nothing new can appear. Only then is it killed: killed one by one, one that
keeps forking could outrun its killer. One look is not atomic, though, and may miss a process whose parent ends at that
moment. So nothing here decides that a tree is gone: for its own descendants, a subreaper asks the kernel, which answers
``ECHILD`` to ``waitpid`` only when there is none.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Processes = dict[int, "Process"]
    Find = Callable[[Callable[["Process"], object]], Processes]

_ROUNDS = 30
"""The number of looks at a growing tree before what was found is killed."""
_READ_BYTES = 65536
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_DEAD = (b"Z", b"X", b"x")


class Process:
    """A process as the kernel described it at one moment.

    Attributes:
        pid: its id, which may belong to another process later; together with ``started`` it is unique in a boot.
        started: its start, in clock ticks since the boot.
        state: the kernel's letter for its state.
    """

    __slots__ = ("group", "parent", "pid", "session", "started", "state")

    def __init__(self, pid: int, state: bytes, parent: int, group: int, session: int, started: int) -> None:
        self.pid, self.state, self.parent = pid, state, parent
        self.group, self.session, self.started = group, session, started

    def is_dead(self) -> bool:
        """Return whether only its exit status is left."""
        return self.state in _DEAD


def read_file(path: str, limit: int = _READ_BYTES) -> bytes | None:
    """Return the content of a file of ``/proc``; None if the process is gone or not ours to look at.

    Raises:
        OSError: it cannot be told, since the system is short of descriptors or memory.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _SHORTAGE:
            raise
        return None
    try:
        pieces = [os.read(fd, _READ_BYTES)]
        while pieces[-1] and sum(map(len, pieces)) < limit:
            pieces.append(os.read(fd, _READ_BYTES))
        return b"".join(pieces)
    except OSError as error:
        if error.errno in _SHORTAGE:
            raise
        return None
    finally:
        os.close(fd)


def read_process(pid: int) -> Process | None:
    """Return what the kernel says about a process; None if there is none."""
    content = read_file(f"/proc/{pid}/stat", 1)
    if not content:
        return None
    # The program's name, in parentheses, may contain anything. Source: proc_pid_stat(5).
    fields = content[content.rindex(b")") + 2 :].split()
    return Process(pid, fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def all_pids() -> list[int]:
    """Return the ids of all processes that can be seen."""
    return [int(name) for name in _list("/proc") if name.isdigit()]


def children_of(pid: int) -> list[int]:
    """Return the ids of a process's children, also those that have ended but are not reaped."""
    if not _HAS_CHILDREN_FILES:
        return [process.pid for process in map(read_process, all_pids()) if process and process.parent == pid]
    found: list[int] = []
    for thread in _list(f"/proc/{pid}/task"):
        found += map(int, (read_file(f"/proc/{pid}/task/{thread}/children", 1 << 22) or b"").split())
    return found


def with_descendants(
    roots: Iterable[int], spare: Iterable[int] = (), visit: Callable[[Process], object] | None = None
) -> Processes:
    """Return the living processes among the roots and their descendants.

    Args:
        roots: process ids.
        spare: ids that are left out, with their descendants.
        visit: called with each process as soon as it is found, before its children are looked for.
    """
    spared = set(spare)
    children = children_of if _HAS_CHILDREN_FILES else _children_table().get
    found: Processes = {}
    seen: set[int] = set(spared)
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in seen:
            continue
        seen.add(pid)
        process = read_process(pid)
        if process is None:
            continue
        if not process.is_dead():
            found[pid] = process
            if visit is not None:
                visit(process)
        waiting += children(pid) or ()
    return found


def send_signal(process: Process, number: int) -> bool:
    """Send a signal to exactly this process, not to a later one with its id; return whether it could be sent."""
    try:
        handle = os.pidfd_open(process.pid)
    except AttributeError:
        return _send_by_id(process, number)
    except OSError as error:
        return error.errno == errno.ENOSYS and _send_by_id(process, number)
    try:
        current = read_process(process.pid)
        if current is None or current.started != process.started:
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def stop_and_kill(find: Find, *, groups: bool) -> Processes:
    """Stop and then kill all processes of a tree, once; return those that were found.

    Some may still be alive afterwards: see the top of this file.

    Args:
        find: returns the tree's living processes, and calls its argument with each as soon as it is found: a chain of
            processes, of which each forks the next and ends, is gone when the whole tree was looked at.
        groups: whether the tree consists of descendants of this process, so that its process groups may be signalled.
    """
    found: Processes = {}
    own_session = os.getsid(0)

    def stop(process: Process) -> None:
        if process.pid not in found:
            signal_with_group(process, signal.SIGSTOP)

    def signal_with_group(process: Process, number: int) -> None:
        # A session began with one of the descendants, so its groups have no other members. The kernel signals a group
        # at once, so that a chain of processes cannot slip through unless it changes its group all the time.
        if groups and process.session != own_session and process.group > 1:
            with suppress(OSError):
                os.killpg(process.group, number)
        send_signal(process, number)

    for _ in range(_ROUNDS):
        new = {pid: process for pid, process in find(stop).items() if pid not in found}
        if not new:
            break
        found.update(new)
    for process in found.values():
        signal_with_group(process, signal.SIGKILL)
    return found


def reap() -> tuple[dict[int, int], bool]:
    """Reap all children that have ended.

    Returns:
        their wait statuses by process id, and whether there is still a child.
    """
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended[pid] = status


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        if error.errno in _SHORTAGE:
            raise
        return []


def _send_by_id(process: Process, number: int) -> bool:
    current = read_process(process.pid)
    if current is not None and current.started != process.started:
        return False
    try:
        os.kill(process.pid, number)
    except OSError:
        return False
    return True


def _children_table() -> dict[int, list[int]]:
    """Return the children of all processes, by their parent's id."""
    table: dict[int, list[int]] = {}
    for process in map(read_process, all_pids()):
        if process is not None:
            table.setdefault(process.parent, []).append(process.pid)
    return table


HAS_PROC = os.path.exists("/proc/self/stat")
# Linux may be built without this file.
_HAS_CHILDREN_FILES = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
