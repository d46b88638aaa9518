"""The files that the kernel knows by number, for one host of the two-host file server.

Used by host_filesystem.py. A number stays valid until the kernel has forgotten it as often as it was given it.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

from tests.support.twohosts.lock_table import FileKey

ROOT = 1


@dataclass
class Node:
    """A file that the kernel knows by number."""

    fd: int
    key: FileKey
    lookups: int = 1

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.fd}"


@dataclass
class NodeTable:
    """The kernel's numbers for files, and back."""

    by_number: dict[int, Node] = field(default_factory=dict)
    by_key: dict[FileKey, int] = field(default_factory=dict)
    next_number: int = ROOT + 1
    mutex: threading.Lock = field(default_factory=threading.Lock)

    def number_of(self, fd: int) -> int:
        """Return the number for an open O_PATH descriptor, and own the descriptor."""
        st = os.fstat(fd)
        key = (st.st_dev, st.st_ino)
        with self.mutex:
            if (number := self.by_key.get(key)) is not None:
                os.close(fd)
                self.by_number[number].lookups += 1
                return number
            number = self.next_number
            self.next_number += 1
            self.by_number[number] = Node(fd, key)
            self.by_key[key] = number
            return number

    def forget(self, number: int, lookups: int) -> None:
        with self.mutex:
            node = self.by_number.get(number)
            if node is None or number == ROOT:
                return
            node.lookups -= lookups
            if node.lookups <= 0:
                os.close(node.fd)
                self.by_key.pop(node.key, None)
                del self.by_number[number]
