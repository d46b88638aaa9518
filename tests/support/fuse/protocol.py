"""The structures of the kernel's FUSE protocol 7.31 and later, and mount(2). Called by ``server`` only.

Layouts: include/uapi/linux/fuse.h of the Linux kernel.
"""

from __future__ import annotations

import ctypes
import os
import struct
from enum import IntEnum
from typing import Final

IN_HEADER: Final = struct.Struct("<IIQQIIIHH")
OUT_HEADER: Final = struct.Struct("<IiQ")
_ATTR: Final = struct.Struct("<6Q10I")
_ENTRY_HEAD: Final = struct.Struct("<QQQQII")
_ATTR_HEAD: Final = struct.Struct("<QII")
INIT_IN: Final = struct.Struct("<IIII")
_INIT_OUT: Final = struct.Struct("<IIIIHHIIHHIIH22x")
OPEN_OUT: Final = struct.Struct("<QIi")
SETATTR_IN: Final = struct.Struct("<IIQQQQQQIIIIIIII")
READ_IN: Final = struct.Struct("<QQIIQII")
WRITE_IN: Final = struct.Struct("<QQIIQII")
WRITE_OUT: Final = struct.Struct("<II")
CREATE_IN: Final = struct.Struct("<IIII")
STATFS_OUT: Final = struct.Struct("<5Q4I24x")
_DIRENT: Final = struct.Struct("<QQII")

MAX_WRITE: Final = 1 << 17
FOPEN_DIRECT_IO: Final = 1
FOPEN_KEEP_CACHE: Final = 2
_BIG_WRITES, _MAX_PAGES, _INIT_EXT, _DIRECT_IO_ALLOW_MMAP = 1 << 5, 1 << 22, 1 << 30, 1 << 4
_CACHED_SEC: Final = 3600
"""Nobody but this kernel changes the tree, so that it may remember names and attributes."""


class Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    BATCH_FORGET = 42
    RENAME2 = 45


class SetAttr(IntEnum):
    """Bits of a SETATTR request: which fields are given."""

    MODE = 1
    UID = 2
    GID = 4
    SIZE = 8
    MTIME = 32


def init_reply(minor: int, flags: int, read_ahead: int) -> bytes:
    wanted = flags & (_BIG_WRITES | _MAX_PAGES | _INIT_EXT)
    return _INIT_OUT.pack(
        7, min(minor, 39), read_ahead, wanted, 12, 9, MAX_WRITE, 1, 32, 0, _DIRECT_IO_ALLOW_MMAP, 0, 0
    )


def _attributes(number: int, size: int, mode: int, links: int, uid: int, gid: int, changed_ns: int) -> bytes:
    seconds, fraction = divmod(changed_ns, 10**9)
    blocks = -(-size // 512)
    times = (seconds, seconds, seconds, fraction, fraction, fraction)
    return _ATTR.pack(number, size, blocks, *times, mode, links, uid, gid, 0, 4096, 0)


def attr_reply(number: int, size: int, mode: int, links: int, uid: int, gid: int, changed_ns: int) -> bytes:
    return _ATTR_HEAD.pack(_CACHED_SEC, 0, 0) + _attributes(number, size, mode, links, uid, gid, changed_ns)


def entry_reply(number: int, size: int, mode: int, links: int, uid: int, gid: int, changed_ns: int) -> bytes:
    head = _ENTRY_HEAD.pack(number, 0, _CACHED_SEC, _CACHED_SEC, 0, 0)
    return head + _attributes(number, size, mode, links, uid, gid, changed_ns)


def folder_entry(number: int, next_offset: int, name: str, mode: int) -> bytes:
    raw = os.fsencode(name)
    entry = _DIRENT.pack(number, next_offset, len(raw), mode >> 12) + raw
    return entry + bytes(-len(entry) % 8)


_libc = ctypes.CDLL(None, use_errno=True)
_NOSUID_NODEV: Final = 2 | 4
_DETACH: Final = 2


def mount(folder: str, subtype: str) -> int:
    """Mount a new file system on ``folder``; returns the descriptor to serve it from. Asks for root."""
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    kind = f"fuse.{subtype}".encode()
    if _libc.mount(subtype.encode(), os.fsencode(folder), kind, _NOSUID_NODEV, options.encode()):
        number = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(number, os.strerror(number), folder)
    return descriptor


def unmount(folder: str) -> bool:
    """Detach what is mounted on ``folder``, in use or not; False when nothing is."""
    return bool(_libc.umount2(os.fsencode(folder), _DETACH) == 0)
