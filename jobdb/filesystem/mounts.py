"""Reads the text of /proc/self/mountinfo and finds the mount that holds a path.

Called by filesystem.py, which decides from it what journal a folder can bear. Pure but for `read_mounts`:
it takes text and absolute paths and touches no file, so that a table copied from any machine can be tried.
The format is that of proc_pid_mountinfo(5).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = rb"\\([0-7]{3})"
# Overlay puts a backslash before a comma inside an option's value; the kernel shows that backslash as \134.
_COMMA = r"(?<!\\134),"


class Mount(NamedTuple):
    """One line of the mount table.

    Attributes:
        mount_point: where it is attached, as this process sees it.
        fs_type: `ext4`, `nfs4`, `fuse.sshfs`, …
        source: device, server and path, or whatever the file system calls itself.
        options: the mount's own options, then those of the file system, in the order of the kernel.
        mount_id: number of the mount, for the tree of mounts.
        parent_id: number of the mount on which this one is attached.
        root: which folder of the file system is attached ("/" unless it is a bind mount or a subvolume).
        device: `major:minor`, as `st_dev` gives it for most file systems.
    """

    mount_point: str
    fs_type: str
    source: str
    options: tuple[str, ...]
    mount_id: int = 0
    parent_id: int = 0
    root: str = "/"
    device: str = ""

    def has(self, name: str) -> bool:
        """Whether the option stands there, with or without a value."""
        return any(option == name or option.startswith(f"{name}=") for option in self.options)

    def value(self, name: str) -> str | None:
        """The option's value; the last one if it stands there twice; None without the option or a value."""
        prefix = f"{name}="
        found = [option[len(prefix) :] for option in self.options if option.startswith(prefix)]
        return found[-1] if found else None


def unescape(text: str) -> str:
    r"""Undoes the kernel's octal escapes: `\040` is a space, `\134` a backslash."""
    if "\\" not in text:
        return text
    raw = re.sub(_ESCAPE, lambda match: bytes([int(match[1], 8) & 0xFF]), text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Parses a mount table.

    Args:
        text: the content of a mountinfo file.

    Returns:
        The mounts in the order of the file. Lines that are no mounts are left out: a table that cannot
        be read must end in the careful answer of the caller, not in a crash.
    """
    # Not splitlines(): it also splits at characters that the kernel leaves in names, such as U+0085.
    return tuple(mount for line in text.split("\n") if (mount := _parse_line(line)) is not None)


def _parse_line(line: str) -> Mount | None:
    # ID PARENT MAJ:MIN ROOT POINT OPTIONS [optional fields…] - TYPE SOURCE SUPEROPTIONS
    head, separator, tail = line.partition(" - ")
    fields, rest = head.split(" "), tail.split(" ")
    if not separator or len(fields) < 6 or len(rest) < 2:
        return None
    try:
        mount_id, parent_id = int(fields[0]), int(fields[1])
    except ValueError:
        return None
    if not fields[4].startswith("/"):
        return None
    own = _options(fields[5])
    # Some file systems show no source at all: then two spaces follow each other, and the count still fits.
    of_file_system = _options(rest[2]) if len(rest) > 2 else ()
    return Mount(
        mount_point=unescape(fields[4]),
        fs_type=unescape(rest[0]),
        source=unescape(rest[1]),
        options=own + of_file_system,
        mount_id=mount_id,
        parent_id=parent_id,
        root=unescape(fields[3]),
        device=fields[2],
    )


def _options(field: str) -> tuple[str, ...]:
    options = re.split(_COMMA, field) if "\\" in field else field.split(",")
    return tuple(unescape(option) for option in options if option)


def read_mounts() -> tuple[Mount, ...]:
    """The mount table of this process, or an empty one where there is none to read."""
    try:
        text = _MOUNTINFO.read_text("utf-8", "surrogateescape")
    except OSError:
        return ()
    return parse_mountinfo(text)


def mount_for(path: str | Path, mounts: Sequence[Mount]) -> Mount | None:
    """The mount that holds a path.

    Walks the tree of mounts as the kernel does, so that a mount that a later one covers (at the same
    point, or at a folder above it) is not taken for the one in use. What does not exist yet is held by
    the mount of its nearest parent, which needs nothing special.

    Args:
        path: an absolute path without symbolic links and `..`; the caller resolves them.
        mounts: the table, in the kernel's order.

    Returns:
        The mount, or None if the table has none above that path.
    """
    steps = [*reversed(PurePosixPath(path).parents), PurePosixPath(path)]
    depth_of = {str(step): depth for depth, step in enumerate(steps)}
    known = {mount.mount_id for mount in mounts}
    # The topmost entry's parent is outside the table: beyond this namespace or this process's root.
    roots = [
        mount
        for mount in mounts
        if mount.mount_point in depth_of and (mount.parent_id not in known or mount.parent_id == mount.mount_id)
    ]
    held = [_descend(top, mounts, depth_of) for top in roots]
    return _deepest(held or [m for m in mounts if m.mount_point in depth_of], depth_of)


def _descend(top: Mount, mounts: Iterable[Mount], depth_of: dict[str, int]) -> Mount:
    children: dict[int, list[Mount]] = {}
    for mount in mounts:
        if mount.mount_point in depth_of and mount.mount_id != mount.parent_id:
            children.setdefault(mount.parent_id, []).append(mount)
    current, seen = top, {top.mount_id}
    while True:
        # Of a mount's children the one highest in the tree is met first on the way down; a child attached
        # below a covered folder hangs on the covered mount and so is never reached.
        depth = depth_of[current.mount_point]
        below = [
            child
            for child in children.get(current.mount_id, [])
            if depth_of[child.mount_point] >= depth and child.mount_id not in seen
        ]
        if not below:
            return current
        nearest = min(depth_of[child.mount_point] for child in below)
        current = [child for child in below if depth_of[child.mount_point] == nearest][-1]
        seen.add(current.mount_id)


def _deepest(mounts: Sequence[Mount], depth_of: dict[str, int]) -> Mount | None:
    best: Mount | None = None
    for mount in mounts:  # of two at the same point the later one covers the earlier one
        if best is None or depth_of[mount.mount_point] >= depth_of[best.mount_point]:
            best = mount
    return best
