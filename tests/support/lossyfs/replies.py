"""Replies of the lossy file system to the kernel. Called by ``server``."""

from __future__ import annotations

import os
from typing import Final

from tests.support.fuse import protocol

_CACHED_SEC: Final = 3600
"""Only this kernel changes the tree, so that it may cache names and attributes."""


def init_reply(minor: int, flags: int, read_ahead: int) -> bytes:
    wanted = flags & (protocol.BIG_WRITES | protocol.MAX_PAGES | protocol.INIT_EXTENDED)
    version = 7, min(minor, 39)
    limits = 12, 9, protocol.MAX_WRITE, 1, 32, 0
    return protocol.INIT_OUT.pack(*version, read_ahead, wanted, *limits, protocol.DIRECT_IO_MAY_MAP_2, 0, 0)


def _attributes(number: int, size: int, mode: int, links: int, uid: int, gid: int, changed_ns: int) -> bytes:
    seconds, fraction = divmod(changed_ns, 10**9)
    blocks = -(-size // 512)
    times = (seconds, seconds, seconds, fraction, fraction, fraction)
    return protocol.ATTRIBUTES.pack(number, size, blocks, *times, mode, links, uid, gid, 0, 4096, 0)


def attr_reply(number: int, size: int, mode: int, links: int, uid: int, gid: int, changed_ns: int) -> bytes:
    head = protocol.ATTRIBUTES_OUT.pack(_CACHED_SEC, 0, 0)
    return head + _attributes(number, size, mode, links, uid, gid, changed_ns)


def entry_reply(number: int, size: int, mode: int, links: int, uid: int, gid: int, changed_ns: int) -> bytes:
    head = protocol.ENTRY_OUT.pack(number, 0, _CACHED_SEC, _CACHED_SEC, 0, 0)
    return head + _attributes(number, size, mode, links, uid, gid, changed_ns)


def folder_entry(number: int, next_offset: int, name: str, mode: int) -> bytes:
    raw = os.fsencode(name)
    entry = protocol.DIRECTORY_ENTRY.pack(number, next_offset, len(raw), mode >> 12) + raw
    return entry + bytes(-len(entry) % 8)
