"""The placement of a database: the SQLite journal that its folder can have, and the reason.

Called by the SQLite engine on every open, and by `jobdb doctor` and `jobdb probe`. May call mounts.py and policy.py.
Only `placement_for` examines the live system; `decide` is pure: a mount in, a `Placement` out. WAL needs memory shared
by all who have the file open, which no network file system provides (https://sqlite.org/wal.html, point 2 of its
overview); SQLite itself does not detect that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .mounts import Mount, mount_for, read_mounts
from .policy import Decision, cross_check, decision_for, type_of_magic

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Mount", "Placement", "decide", "nearest_existing", "placement_for", "refuse_mounted_file", "statfs_magic"]

_CIFS_LOOKUP_CACHE = Path("/proc/fs/cifs/LookupCacheEnabled")


class Placement(NamedTuple):
    """The journal that a folder can have, and the facts about its file system.

    Attributes:
        folder: the folder.
        fs_type: type of the file system that holds it, "unknown" if it cannot be determined.
        source: device or server behind the mount.
        mount_point: where that file system is mounted.
        options: the mount's options, as the kernel shows them.
        journal: "wal", "delete", or None: no database may be opened here.
        reason: the reason, in one sentence.
        advice: what to do about it; None if there is nothing to do.
        needs_probe: the quick lock probe must pass before anything is written.
        needs_peer_probe: the probe between two hosts must have passed, since nothing local shows how far locks reach.
    """

    folder: str
    fs_type: str
    source: str
    mount_point: str
    options: tuple[str, ...]
    journal: Literal["wal", "delete"] | None
    reason: str
    advice: str | None
    needs_probe: bool
    needs_peer_probe: bool = False

    @property
    def refused(self) -> bool:
        """True if no journal is safe here."""
        return self.journal is None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values; `options` as a list."""
        return {
            "folder": self.folder,
            "fs_type": self.fs_type,
            "source": self.source,
            "mount_point": self.mount_point,
            "options": list(self.options),
            "journal": self.journal,
            "reason": self.reason,
            "advice": self.advice,
            "needs_probe": self.needs_probe,
            "needs_peer_probe": self.needs_peer_probe,
        }


def decide(
    mount: Mount | None,
    *,
    statfs_magic: int | None,
    shared: bool,
    folder: str | None = None,
    upper: Mount | None = None,
    smb_name_cache: bool = True,
) -> Placement:
    """Decide on a folder from the facts that the system reported. Pure.

    Args:
        mount: the mount that holds the folder; None if the mount table could not be read.
        statfs_magic: `f_type` of statfs(2) for the folder, a second source; None if not known.
        shared: the database is marked as used by several hosts: then never WAL, on any file system.
        folder: the folder's name for the placement; None for the mount point.
        upper: for an overlay, the mount that holds its upper folder, if that is visible.
        smb_name_cache: the SMB client caches for a second that a file does not exist (its default).

    Returns:
        The placement. If the two sources differ, it is the more conservative of both decisions.
    """
    name = folder or (mount.mount_point if mount else "/")
    if mount is None:
        statfs_type = type_of_magic(statfs_magic)
        mount = Mount(mount_point="", fs_type=statfs_type or "unknown", source="", options=())
        decision = decision_for(mount, shared=shared, upper=None, smb_name_cache=smb_name_cache)
        if decision.journal == "wal":
            # One source is not enough for WAL; a rollback journal works on every local file system.
            decision = Decision("delete", f"statfs says {statfs_type}, but the mount table could not be read")
    else:
        decision = decision_for(mount, shared=shared, upper=upper, smb_name_cache=smb_name_cache)
        decision = cross_check(decision, mount, statfs_magic, shared=shared)
    return Placement(
        folder=name,
        fs_type=mount.fs_type,
        source=mount.source,
        mount_point=mount.mount_point,
        options=mount.options,
        journal=decision.journal,
        reason=decision.reason,
        advice=decision.advice,
        needs_probe=decision.journal == "delete",
        needs_peer_probe=decision.journal == "delete" and decision.needs_peer_probe,
    )


def placement_for(path: str | Path, *, shared: bool = False, file: str | Path | None = None) -> Placement:
    """Examine the live system and decide on a folder.

    Args:
        path: the folder that holds, or will hold, the database. If it does not exist, its nearest existing parent
            counts. Symbolic links are followed.
        shared: the database is marked as used by several hosts.
        file: the database in that folder. A file that is a mount of its own, as in containers that mount single files,
            is refused: its journal would be beside the mount and not beside the file.

    Returns:
        The placement. An unknown file system is not an error: it gets the conservative decision.
    """
    resolved = os.path.realpath(path)
    existing = nearest_existing(resolved)
    if not sys.platform.startswith("linux"):
        return _placement_without_mountinfo(resolved, shared=shared)
    mounts = read_mounts()
    mount = mount_for(existing, mounts)
    placement = decide(
        mount,
        statfs_magic=None if _same_device(existing, mount) else statfs_magic(existing),
        shared=shared,
        folder=resolved,
        upper=_upper_mount(mount, mounts),
        smb_name_cache=_smb_name_cache(),
    )
    return placement if file is None else refuse_mounted_file(placement, os.path.realpath(file), mounts)


def refuse_mounted_file(placement: Placement, file: str, mounts: Iterable[Mount]) -> Placement:
    """Return the placement, or a refusal if the file is a mount of its own. Pure.

    A process that opens the file by another name uses another ``-wal`` or ``-journal``: commits stay invisible, a crash
    is not rolled back, and a container's writes are gone with it (https://sqlite.org/howtocorrupt.html, section 2.5).
    """
    found = [mount for mount in mounts if mount.mount_point == file]
    if not found:
        return placement
    return placement._replace(
        fs_type=found[-1].fs_type,
        source=found[-1].source,
        mount_point=file,
        options=found[-1].options,
        journal=None,
        reason="the file is a mount of its own, so its journal would not be beside it",
        advice="mount the folder that holds the database, not the file",
        needs_probe=False,
        needs_peer_probe=False,
    )


def _same_device(path: str, mount: Mount | None) -> bool:
    """Return whether stat(2) reports the device of the mount: then statfs is not needed as a second source.

    Some file systems (btrfs, overlays) report a different device for files than for their mount; those need statfs.
    """
    if mount is None or not mount.device:
        return False
    try:
        device = os.stat(path).st_dev
    except OSError:
        return False
    return mount.device == f"{os.major(device)}:{os.minor(device)}"


def statfs_magic(path: str) -> int | None:
    """Return `f_type` of statfs(2) for a path; None if the call does not exist or fails.

    The standard library's `os.statvfs` omits this field, so the C library is called.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(512)  # struct statfs has 120 bytes at most
    if libc.statfs(os.fsencode(path), buffer) != 0:
        return None
    width = 4 if os.uname().machine == "s390x" else ctypes.sizeof(ctypes.c_long)
    # Kernels sign-extend some magics (0xFF534D42); only the low 32 bits are defined.
    return int.from_bytes(buffer.raw[:width], sys.byteorder) & 0xFFFFFFFF


def nearest_existing(path: str) -> str:
    """Return the path itself if it exists, otherwise the nearest folder above it that does."""
    while not os.path.exists(path):
        parent = os.path.dirname(path)
        if parent == path:
            break
        path = parent
    return path


def _upper_mount(mount: Mount | None, mounts: tuple[Mount, ...]) -> Mount | None:
    """Return the mount that holds an overlay's upper folder, if that folder is visible here.

    In a container the option names a folder of the host. It counts only if it exists here and is not on the overlay
    itself.
    """
    upperdir = mount.option_value("upperdir") if mount and mount.fs_type in ("overlay", "overlayfs") else None
    if upperdir is None or not os.path.isdir(upperdir):
        return None
    held_by = mount_for(os.path.realpath(upperdir), mounts)
    return None if held_by == mount else held_by


def _smb_name_cache() -> bool:
    try:
        return _CIFS_LOOKUP_CACHE.read_text("ascii").strip() != "0"
    except (OSError, UnicodeDecodeError):
        return True


def _placement_without_mountinfo(resolved: str, *, shared: bool) -> Placement:
    """Decide without a mount table in /proc: a rollback journal and a probe, unless it is a Mac's local disk."""
    fs_type = "unknown"
    if sys.platform == "darwin":
        fs_type = _mac_type(nearest_existing(resolved)) or "unknown"
    mount = Mount(mount_point="", fs_type=fs_type, source="", options=())
    placement = decide(mount, statfs_magic=None, shared=shared, folder=resolved)
    # Most folders on such systems are local, and no table shows it: only a shared database needs the peer probe.
    return placement._replace(needs_peer_probe=placement.needs_peer_probe and shared)


def _mac_type(path: str) -> str | None:
    """Return `f_fstypename` of statfs(2) on 64-bit macOS (sys/mount.h); None if it cannot be read."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "statfs$INODE64", None) or libc.statfs
    buffer = ctypes.create_string_buffer(4096)
    if call(os.fsencode(path), buffer) != 0:
        return None
    offset = 72  # after the block counts, fsid, owner, type, flags and subtype
    return buffer.raw[offset : offset + 16].split(b"\0", 1)[0].decode("ascii", "replace") or None
