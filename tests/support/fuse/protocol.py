"""Numbers and layouts of the kernel's FUSE protocol 7.39 (include/uapi/linux/fuse.h), as far as the tests speak it.

Pure. Called by the servers of ``tests.support.lossyfs`` and ``tests.support.twohosts``.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum


class Op(IntEnum):
    """Operations, by the kernel's numbers."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
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
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    RENAME2 = 45


LOCK_OPERATIONS = frozenset([Op.GETLK, Op.SETLK, Op.SETLKW, Op.INTERRUPT])

IN_HEADER = struct.Struct("<IIQQIIIHH")
OUT_HEADER = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
ATTRIBUTES_OUT = struct.Struct("<QII")
ENTRY_OUT = struct.Struct("<QQQQII")
OPEN_OUT = struct.Struct("<QIi")
INIT_IN = struct.Struct("<IIII")
INIT_OUT = struct.Struct("<IIIIHHIIHHIIH22x")
SETATTR_IN = struct.Struct("<IIQQQQQQIIIIIIII")
READ_IN = struct.Struct("<QQIIQII")
WRITE_IN = struct.Struct("<QQIIQII")
WRITE_OUT = struct.Struct("<II")
CREATE_IN = struct.Struct("<IIII")
STATFS_OUT = struct.Struct("<5Q4I24x")
LOCK_IN = struct.Struct("<QQQQIIII")
LOCK_OUT = struct.Struct("<QQII")
DIRECTORY_ENTRY = struct.Struct("<QQII")
INVALIDATE_INODE = struct.Struct("<Qqq")
NOTIFY_INVALIDATE_INODE = 2

# Bits of INIT.
ASYNC_READ = 1 << 0
POSIX_LOCKS = 1 << 1
ATOMIC_O_TRUNC = 1 << 3
BIG_WRITES = 1 << 5
FLOCK_LOCKS = 1 << 10
AUTO_INVALIDATE_DATA = 1 << 12
MAX_PAGES = 1 << 22
INIT_EXTENDED = 1 << 30
DIRECT_IO_MAY_MAP_2 = 1 << 4  # bit 36, counted from the second word
MAX_WRITE = 1 << 17

FOPEN_DIRECT_IO = 1
FOPEN_KEEP_CACHE = 2
RELEASE_FLOCK_UNLOCK = 2

# Bits that say which attributes SETATTR sets.
SET_MODE = 1
SET_UID = 2
SET_GID = 4
SET_SIZE = 8
SET_ATIME = 16
SET_MTIME = 32
SET_HANDLE = 64
SET_ATIME_NOW = 128
SET_MTIME_NOW = 256

READ_LOCK = 0
WRITE_LOCK = 1
UNLOCK = 2


def attributes(st: os.stat_result) -> bytes:
    """Return the attributes of a file as the kernel reads them."""
    times = [divmod(ns, 10**9) for ns in (st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns)]
    return ATTRIBUTES.pack(
        st.st_ino,
        st.st_size,
        st.st_blocks,
        *(seconds for seconds, _ in times),
        *(nanoseconds for _, nanoseconds in times),
        st.st_mode,
        st.st_nlink,
        st.st_uid,
        st.st_gid,
        st.st_rdev & 0xFFFFFFFF,
        4096,
        0,
    )


def duration(seconds: float) -> tuple[int, int]:
    """Split a time into whole seconds and nanoseconds."""
    return int(seconds), int(seconds % 1 * 1e9)


def name(body: bytes) -> bytes:
    """Return the first name of a request; each name ends with a zero byte."""
    return body.split(b"\0", 1)[0]
