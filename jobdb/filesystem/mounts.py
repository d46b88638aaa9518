"""The mount table in /proc/self/mountinfo, and the mount that holds a path.

Called by placement.py, which decides from it which journal a folder can have. Pure except for `read_mounts`: it takes
text and absolute paths and reads no file, so a table from any machine can be tested. The format is that of
proc_pid_mountinfo(5).
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
        mount_point: where it is mounted, as this process sees it.
        fs_type: `ext4`, `nfs4`, `fuse.sshfs`, …
        source: device, server and path, or whatever the file system reports.
        options: the options of the mount, then those of the file system, in the kernel's order.
        mount_id: id of the mount, for the tree of mounts.
        parent_id: id of the mount that holds its mount point.
        root: the folder of the file system that is mounted ("/" unless it is a bind mount or a subvolume).
        device: `major:minor`, which is `st_dev` for most file systems.
    """

    mount_point: str
    fs_type: str
    source: str
    options: tuple[str, ...]
    mount_id: int = 0
    parent_id: int = 0
    root: str = "/"
    device: str = ""

    def has_option(self, name: str) -> bool:
        """Return whether the mount has an option, with or without a value."""
        return any(option == name or option.startswith(f"{name}=") for option in self.options)

    def option_value(self, name: str) -> str | None:
        """Return an option's value, the last one if it is given twice; None without the option or without a value."""
        prefix = f"{name}="
        found = [option[len(prefix) :] for option in self.options if option.startswith(prefix)]
        return found[-1] if found else None


def unescape(text: str) -> str:
    r"""Decode the kernel's octal escapes: `\040` is a space, `\134` a backslash."""
    if "\\" not in text:
        return text
    raw = re.sub(_ESCAPE, lambda match: bytes([int(match[1], 8) & 0xFF]), text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Parse a mount table.

    Args:
        text: the content of a mountinfo file.

    Returns:
        The mounts in the order of the file. Invalid lines are skipped: a table that cannot be read must lead to the
        caller's conservative decision, not to a crash.
    """
    # Not splitlines(): it also splits at characters that the kernel does not escape, such as U+0085.
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
    # Some file systems show no source: then there are two spaces in a row, and the fields still line up.
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
    """Read the mount table of this process; return an empty one if there is none."""
    try:
        text = _MOUNTINFO.read_text("utf-8", "surrogateescape")
    except OSError:
        return ()
    return parse_mountinfo(text)


def mount_for(path: str | Path, mounts: Sequence[Mount]) -> Mount | None:
    """Return the mount that holds a path.

    Walks the tree of mounts as the kernel does, so that a mount that a later one covers (at the same point, or at a
    folder above it) is not taken for the one in use. A path that does not exist yet is held by the mount of its nearest
    parent, which needs no special case.

    Args:
        path: an absolute path without symbolic links or `..`, which the caller has resolved.
        mounts: the table, in the kernel's order.

    Returns:
        The mount, or None if the table has none above that path.
    """
    steps = [*reversed(PurePosixPath(path).parents), PurePosixPath(path)]
    depth_of = {str(step): depth for depth, step in enumerate(steps)}
    known = {mount.mount_id for mount in mounts}
    # The parent of the topmost entry is not in the table: it is outside of this namespace or this process's root.
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
        # Of a mount's children, the one nearest to it is reached first on the way down. A child below a covered folder
        # belongs to the covered mount and so is never reached.
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
