"""The policy: the journal that each type of file system can have, and the mount options that it needs.

Called by placement.py only. Pure: it works on an entry of the mount table, not on the live system. There are three
decisions: WAL for local file systems on the list; a rollback journal (DELETE) where locks reach all hosts and a stale
"no such file" cannot hide a hot journal; otherwise a refusal with the command that fixes the mount.
Sources: nfs(5), mount.cifs(8), https://sqlite.org/lockingv3.html (hot journals), the kernel's show_options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from .mounts import Mount

if TYPE_CHECKING:
    from collections.abc import Callable

ALTERNATIVES = "put the database on a local disk and let other hosts use MQTT (tickets), or use postgresql://"

_PEER_ADVICE = "before a second host uses this folder, run 'jobdb probe DIR --peer NAME' on both hosts at the same time"


class Decision(NamedTuple):
    """The decision for one mount; see `Placement` for the fields."""

    journal: Literal["wal", "delete"] | None
    reason: str
    advice: str | None = None
    needs_peer_probe: bool = False


# Local file systems of Linux, macOS and the BSDs: one kernel sees all users, so memory and locks are shared.
_LOCAL = frozenset(
    [
        "ext2",
        "ext3",
        "ext4",
        "xfs",
        "btrfs",
        "zfs",
        "tmpfs",
        "ramfs",
        "rootfs",
        "f2fs",
        "bcachefs",
        "jfs",
        "reiserfs",
        "nilfs2",
        "ntfs3",
        "vfat",
        "exfat",
        "apfs",
        "hfs",
        "hfsplus",
        "ufs",
        "ffs",
    ]
)

# FUSE on one machine: the kernel grants the locks of that mount, and no other host has it; but mapped memory and the
# underlying folder depend on each implementation.
_LOCAL_FUSE = frozenset(
    [
        "fuseblk",
        "fuse.fuse-overlayfs",
        "fuse.gocryptfs",
        "fuse.encfs",
        "fuse.cryfs",
        "fuse.mergerfs",
        "fuse.unionfs",
        "fuse.bindfs",
        "fuse.exfat",
        "fuse.ntfs-3g",
        "fuse.lxcfs",
        "ecryptfs",
        "aufs",
    ]
)

# A folder of a virtual machine's host. Locks are granted in the guest unless configured otherwise.
_VM_SHARE = frozenset(
    [
        "9p",
        "virtiofs",
        "drvfs",
        "vboxsf",
        "vmhgfs",
        "prl_fs",
        "fuse.vmhgfs-fuse",
        "fuse.grpcfuse",
        "fakeowner",
    ]
)

# One lock manager and coherent caches for all hosts, without an option to check.
_CLUSTER = frozenset(["ceph", "glusterfs", "fuse.glusterfs", "gfs2", "ocfs2", "gpfs"])

_OBJECT_STORE = "an object store behind a mount has no locks and rewrites whole files"

# Measured or documented to be unsafe, whatever the options.
_UNSAFE = {
    "fuse.sshfs": "sshfs keeps locks on each host: two hosts write at once and the database is damaged",
    **dict.fromkeys(
        [
            "fuse.gcsfuse",
            "fuse.s3fs",
            "fuse.goofys",
            "fuse.geesefs",
            "fuse.blobfuse",
            "fuse.blobfuse2",
            "fuse.mount-s3",
            "fuse.mountpoint-s3",
        ],
        _OBJECT_STORE,
    ),
    "fuse.rclone": "rclone has no locks between hosts and writes files back later, whole",
    "fuse.davfs": "WebDAV has no byte-range locks and writes files back whole",
    "davfs": "WebDAV has no byte-range locks and writes files back whole",
    "fuse.curlftpfs": "FTP has no locks",
    "afs": "AFS keeps byte-range locks on each host",
    "coda": "Coda has no locks between hosts",
}

_TYPES_BY_MAGIC: dict[int, tuple[str, ...]] = {
    0xEF53: ("ext2", "ext3", "ext4"),
    0x58465342: ("xfs",),
    0x9123683E: ("btrfs",),
    0x2FC12FC1: ("zfs",),
    0x01021994: ("tmpfs", "rootfs"),
    0x858458F6: ("ramfs", "rootfs"),
    0xF2F52010: ("f2fs",),
    0xCA451A4E: ("bcachefs",),
    0x3153464A: ("jfs",),
    0x52654973: ("reiserfs",),
    0x3434: ("nilfs2",),
    0x7366746E: ("ntfs3",),
    0x4D44: ("vfat",),
    0x2011BAB0: ("exfat",),
    0x482B: ("hfsplus",),
    0x4244: ("hfs",),
    0x00011954: ("ufs",),
    0x794C7630: ("overlay",),
    0x61756673: ("aufs",),
    0xF15F: ("ecryptfs",),
    0x6969: ("nfs", "nfs4"),
    0x517B: ("cifs",),
    0xFF534D42: ("cifs", "smb3"),
    0xFE534D42: ("cifs", "smb3"),
    0x01021997: ("9p",),
    0x786F4256: ("vboxsf",),
    0x65735546: ("fuse", "fuseblk", "virtiofs"),
    0x00C36400: ("ceph",),
    0x0BD00BD0: ("lustre",),
    0x01161970: ("gfs2",),
    0x7461636F: ("ocfs2",),
    0x47504653: ("gpfs",),
    0x19830326: ("beegfs",),
    0x5346414F: ("afs",),
    0x6B414653: ("afs",),
    0x73757245: ("coda",),
}


def type_of_magic(magic: int | None) -> str | None:
    """Return a file system type with this `f_type`; None if it is not known."""
    return _TYPES_BY_MAGIC[magic][0] if magic in _TYPES_BY_MAGIC else None


def decision_for(mount: Mount, *, shared: bool, upper: Mount | None, smb_name_cache: bool) -> Decision:
    """Decide on a mount from the mount table alone; arguments as for `placement.decide`."""
    kind = mount.fs_type
    if kind in ("overlay", "overlayfs"):
        decision = _overlay(mount, shared=shared, upper=upper, smb_name_cache=smb_name_cache)
    elif kind in _LOCAL:
        decision = Decision("wal", f"{kind} is a local file system")
    elif kind in ("cifs", "smb3", "smbfs"):
        decision = _smb(mount, name_cache=smb_name_cache)
    elif kind in _CHECKED:
        decision = _CHECKED[kind](mount)
    elif kind in _UNSAFE:
        decision = Decision(None, f"{kind}: {_UNSAFE[kind]}", ALTERNATIVES)
    elif kind in _CLUSTER:
        decision = Decision("delete", f"{kind} is a cluster file system with locks for all hosts", _PEER_ADVICE)
    elif kind in _VM_SHARE:
        decision = _vm_share(mount, shared=shared)
    elif kind in _LOCAL_FUSE:
        decision = Decision(
            "delete",
            f"{kind} keeps its locks on this host",
            _PEER_ADVICE if shared else None,
            needs_peer_probe=shared,
        )
    else:
        decision = Decision(
            "delete",
            f"{kind} is unknown, and so is how far its locks reach",
            "run 'jobdb probe DIR --peer NAME' on two hosts that use this folder, at the same time, or " + ALTERNATIVES,
            needs_peer_probe=True,
        )
    if decision.journal == "wal" and shared:
        return Decision(
            "delete",
            f"the database is marked shared: other hosts use it, so no WAL although {kind} is local",
        )
    if decision.journal and "ro" in mount.options:
        return decision._replace(advice="the mount is read-only; remount it with 'rw' to write")
    return decision


def cross_check(decision: Decision, mount: Mount, magic: int | None, *, shared: bool) -> Decision:
    """Compare the decision with the type that statfs reported; return the more conservative one if they differ."""
    if magic is None or decision.journal is None:
        return decision
    family = "fuse" if mount.fs_type.startswith("fuse.") else mount.fs_type
    if family in _TYPES_BY_MAGIC.get(magic, ()) or (family == "overlayfs" and magic == 0x794C7630):
        return decision
    statfs_type = type_of_magic(magic)
    if statfs_type is None and not any(family in names for names in _TYPES_BY_MAGIC.values()):
        return decision  # neither the type nor the number is known, so there is no contradiction
    shown = statfs_type or f"type 0x{magic:x}"
    difference = f"the mount table says {mount.fs_type}, statfs says {shown}"
    if statfs_type is None or statfs_type in _LOCAL or statfs_type in _LOCAL_FUSE or statfs_type == "overlay":
        if decision.journal == "wal":
            return Decision("delete", f"{difference}: the conservative choice")
        return decision
    # The options are those of another file system, so nothing is known about this one.
    without_options = Mount(mount.mount_point, statfs_type, mount.source, ())
    conservative = decision_for(without_options, shared=shared, upper=None, smb_name_cache=True)
    return conservative._replace(reason=f"{difference}: {conservative.reason}")


def _overlay(mount: Mount, *, shared: bool, upper: Mount | None, smb_name_cache: bool) -> Decision:
    if upper is not None and upper.fs_type not in ("overlay", "overlayfs"):
        below = decision_for(upper, shared=shared, upper=None, smb_name_cache=smb_name_cache)
        return below._replace(reason=f"overlay whose upper folder is on {upper.fs_type}: {below.reason}")
    # Linux accepts no network file system as the upper layer of an overlay, and that is where writes go.
    volatile = "the overlay is mounted 'volatile': nothing on it survives a power loss"
    return Decision(
        "wal",
        "overlay is local: writes go to its upper folder",
        volatile if mount.has_option("volatile") else None,
    )


def _nfs(mount: Mount) -> Decision:
    faults: list[str] = []
    local_lock = mount.option_value("local_lock")
    if mount.has_option("nolock"):
        faults.append("'nolock' keeps locks on each host")
    if local_lock not in (None, "none"):
        faults.append(f"'local_lock={local_lock}' keeps locks on each host")
    if local_lock is None:
        faults.append("the mount does not say 'local_lock=none'")
    lookupcache = mount.option_value("lookupcache")
    # A default mount shows no lookupcache option: it caches missing names too.
    if lookupcache not in ("none", "pos", "positive"):
        faults.append("without 'lookupcache=none' another host's hot journal can stay invisible after a crash")
    if mount.has_option("nocto"):
        faults.append("'nocto' lets a host read what it had cached before another host wrote")
    if not faults:
        soft = mount.has_option("soft") or mount.has_option("softerr")
        return Decision(
            "delete",
            f"{mount.fs_type} with locks at the server and no cache of missing names",
            "mount with 'hard': a soft mount drops writes when the server is slow" if soft else None,
        )
    version = mount.option_value("vers") or ("4.2" if mount.fs_type == "nfs4" else "3")
    line = _remount(mount, "nfs", f"vers={version},hard,local_lock=none,lookupcache=none")
    return Decision(None, f"{mount.fs_type}: " + "; ".join(faults), f"{line}  (on every host), or {ALTERNATIVES}")


def _smb(mount: Mount, *, name_cache: bool) -> Decision:
    faults: list[str] = []
    fixes: list[str] = []
    cache = mount.option_value("cache")
    if mount.has_option("nobrl") or mount.has_option("nolock"):
        faults.append("'nobrl' keeps byte-range locks on each host")
    if cache not in ("none", "strict"):
        shown = f"'cache={cache}' serves" if cache else "without 'cache=none' or 'cache=strict' a host may serve"
        faults.append(f"{shown} old data after another host wrote")
    if faults:
        fixes.append(_remount(mount, "cifs", "cache=none,brl"))
    if name_cache:
        # The client caches "no such file" for one second, whatever the mount options.
        faults.append("the SMB client caches missing names, so another host's hot journal can stay invisible")
        fixes.append("echo 0 > /proc/fs/cifs/LookupCacheEnabled")
    if not faults:
        return Decision("delete", f"{mount.fs_type} with locks at the server and no cache of missing names")
    advice = " && ".join(fixes) + f"  (on every host), or {ALTERNATIVES}"
    return Decision(None, f"{mount.fs_type}: " + "; ".join(faults), advice)


def _lustre(mount: Mount) -> Decision:
    if mount.has_option("flock"):
        return Decision("delete", "lustre with 'flock': locks for all hosts", _PEER_ADVICE)
    import shlex

    shown = "'localflock' keeps locks on each host" if mount.has_option("localflock") else "locks are switched off"
    line = f"mount -o remount,flock {shlex.quote(mount.mount_point)}"
    return Decision(None, f"lustre: {shown}", f"{line}  (on every host), or {ALTERNATIVES}")


_CHECKED: dict[str, Callable[[Mount], Decision]] = {"nfs": _nfs, "nfs4": _nfs, "lustre": _lustre}


def _vm_share(mount: Mount, *, shared: bool) -> Decision:
    cache = mount.option_value("cache")
    if shared and mount.fs_type == "9p" and cache not in (None, "none", "0", "0x0"):
        line = _remount(mount, "9p", "trans=virtio,version=9p2000.L,cache=none")
        return Decision(
            None,
            f"9p with 'cache={cache}' serves old data after another host wrote",
            f"{line}, or {ALTERNATIVES}",
        )
    return Decision(
        "delete",
        f"{mount.fs_type} is a folder of this machine's host, which shares no memory and possibly no locks",
        "only this machine may use the database; " + _PEER_ADVICE,
        needs_peer_probe=shared,
    )


def _remount(mount: Mount, fs_type: str, options: str) -> str:
    """Return the two commands that mount it with safe options, since 'remount' would keep old caches."""
    import shlex

    point = shlex.quote(mount.mount_point)
    return f"umount {point} && mount -t {fs_type} -o {options} {shlex.quote(mount.source)} {point}"
