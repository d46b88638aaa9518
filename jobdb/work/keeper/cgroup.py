"""A control group of its own for an attempt, where this process may make one: the kernel kills all of it at once.

Used by the server, which looks for the folder once, and by the keeper; imports only the standard library. A group needs
a mounted cgroup v2 in which our own group is writable: delegated by systemd, or as root. Whatever fails here leaves the
attempt to the subreaper, which kills the same processes one by one. Source: the kernel's cgroup-v2.rst.
"""

from __future__ import annotations

import os
from contextlib import suppress

from .process_tree import read_file, read_process

_PREFIX = b"jobdb-"


def find_parent_group(own: str = "/proc/self/cgroup", mounts: str = "/proc/self/mountinfo") -> bytes | None:
    """Return the folder of this process's own cgroup v2, if attempts may have groups in it; else None."""
    path = next((line[3:] for line in (read_file(own) or b"").splitlines() if line.startswith(b"0::/")), None)
    if path is None:
        return None
    for line in (read_file(mounts, 1 << 22) or b"").splitlines():
        before, _, after = line.partition(b" - ")
        fields = before.split()
        if after.startswith(b"cgroup2 ") and len(fields) > 4:
            root, point = fields[3].rstrip(b"/"), fields[4]
            if path == root or path.startswith(root + b"/"):
                folder = point + path[len(root) :].rstrip(b"/")
                return folder if _is_usable(folder) else None
    return None


def is_attempt_group(folder: bytes) -> bool:
    """Return whether a folder is the group of an attempt, by its name and its files."""
    return os.path.basename(folder).startswith(_PREFIX) and os.path.exists(folder + b"/cgroup.kill")


class AttemptGroup:
    """The control group of an attempt.

    Args:
        folder: its folder, below ``/sys/fs/cgroup``.

    Attributes:
        folder: the same.
    """

    def __init__(self, folder: bytes) -> None:
        self.folder = folder

    @classmethod
    def create(cls, parent: bytes, started: int) -> AttemptGroup | None:
        """Make a group named after this process; None if that fails.

        Args:
            parent: the folder in which it is made.
            started: this process's start, in clock ticks since the boot: another process may get its id later.
        """
        folder = b"%b/%b%d-%d" % (parent, _PREFIX, os.getpid(), started)
        try:
            os.mkdir(folder, 0o755)
        except OSError:
            return None
        return cls(folder)

    def join(self) -> bool:
        """Move this process into the group, and return whether that worked."""
        with suppress(OSError):
            fd = os.open(self.folder + b"/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            try:
                return os.write(fd, b"0") == 1
            finally:
                os.close(fd)
        return False

    def kill(self) -> None:
        """Send SIGKILL to all members; none of them can fork a process that escapes it."""
        with suppress(OSError):
            fd = os.open(self.folder + b"/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"1")
            finally:
                os.close(fd)

    def members(self) -> set[int]:
        """Return the process ids of the members, without those in groups that they have made below it."""
        return set(map(int, (read_file(os.fsdecode(self.folder) + "/cgroup.procs", 1 << 22) or b"").split()))

    def is_populated(self) -> bool:
        """Return whether a member is alive."""
        return b"populated 1" in (read_file(os.fsdecode(self.folder) + "/cgroup.events") or b"")

    def remove(self) -> None:
        """Remove the group, with the groups that its members have made; it stays if a member is alive."""
        with suppress(OSError):
            os.rmdir(self.folder)
            return
        for folder, _, _ in os.walk(self.folder, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)


def remove_abandoned_groups(parent: bytes) -> None:
    """Remove the empty groups of processes that no longer exist."""
    with suppress(OSError):
        for name in os.listdir(parent):
            pid, _, started = name[len(_PREFIX) :].partition(b"-")
            if name.startswith(_PREFIX) and pid.isdigit() and started.isdigit() and read_process(int(pid)) is None:
                AttemptGroup(parent + b"/" + name).remove()


def _is_usable(parent: bytes) -> bool:
    """Return whether groups can be made in a folder and killed as a whole."""
    if not os.access(parent + b"/cgroup.procs", os.W_OK):
        return False
    group = AttemptGroup.create(parent, 0)
    if group is None:
        return False
    try:
        return os.access(group.folder + b"/cgroup.kill", os.W_OK)
    finally:
        group.remove()
