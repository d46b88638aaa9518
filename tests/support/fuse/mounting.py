"""Mount and unmount FUSE file systems: as root by system calls, otherwise through the setuid helper fusermount3."""

from __future__ import annotations

import array
import ctypes
import os
import shutil
import socket
import subprocess
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_NOSUID_NODEV: Final = 2 | 4
_DETACH: Final = 2


def unavailable_reason(*, root: bool) -> str | None:
    """Return why nothing can be mounted here, or None if it can.

    Args:
        root: the mount has options that only root may give.
    """
    if os.geteuid() != 0 and (root or shutil.which("fusermount3") is None):
        return "mounting a FUSE file system needs root" + ("" if root else " or fusermount3")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


def mount(mount_point: str, *, source: str, subtype: str, nonblocking: bool = False) -> int:
    """Mount a new file system; return the descriptor on which the kernel's requests arrive.

    Args:
        mount_point: an existing folder.
        source: the first column of the mount table.
        subtype: the mount table says ``fuse.SUBTYPE``.
        nonblocking: the descriptor's reads return at once.
    """
    if os.geteuid() != 0:
        return _mount_as_user(mount_point, source=source, subtype=subtype)
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_NONBLOCK if nonblocking else 0)
    descriptor = os.open("/dev/fuse", flags)
    options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    kind = f"fuse.{subtype}".encode()
    if _LIBC.mount(source.encode(), os.fsencode(mount_point), kind, _NOSUID_NODEV, options.encode()):
        number = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(number, f"mount: {os.strerror(number)}", mount_point)
    return descriptor


def _mount_as_user(mount_point: str, *, source: str, subtype: str) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    subprocess.run(
        ["fusermount3", "-o", f"subtype={subtype},fsname={source},default_permissions", "--", mount_point],
        env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
        pass_fds=[theirs.fileno()],
        check=True,
        timeout=60,
    )
    _, ancillary, _, _ = ours.recvmsg(4, socket.CMSG_SPACE(4))
    return int(array.array("i", ancillary[0][2][:4])[0])


def unmount(mount_point: str) -> bool:
    """Detach the file system, in use or not; return False if nothing is mounted there."""
    if os.geteuid() == 0:
        return bool(_LIBC.umount2(os.fsencode(mount_point), _DETACH) == 0)
    done = subprocess.run(["fusermount3", "-u", "-z", mount_point], timeout=60, check=False, capture_output=True)
    return done.returncode == 0
