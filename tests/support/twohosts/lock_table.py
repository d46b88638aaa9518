"""The lock manager of the two-host file server: byte-range locks of all hosts in one table.

Used by server.py. Pure but for its own mutex: callers hold `mutex` around `conflict`, `put` and `grant_waiters`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.fuse.protocol import READ_LOCK, UNLOCK, WRITE_LOCK

FileKey = tuple[int, int]


@dataclass(frozen=True)
class Owner:
    """The owner of a lock: the host, fcntl (0) or flock (1), and the kernel's number of the owner."""

    host: int
    kind: int
    number: int


@dataclass(frozen=True)
class Lock:
    """A lock on the bytes from start to end, both included."""

    owner: Owner
    type: int
    start: int
    end: int

    def overlaps(self, start: int, end: int) -> bool:
        return self.start <= end and start <= self.end


@dataclass(frozen=True)
class Waiter:
    """A blocking request that has not been granted yet."""

    key: FileKey
    lock: Lock
    request: tuple[int, int]
    grant: Callable[[], None]


class LockTable:
    """All locks of all files, and the waiters."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.waiters: list[Waiter] = []
        self.grants = 0
        self.denials = 0
        self._locks: dict[FileKey, list[Lock]] = {}

    def conflict(self, key: FileKey, wanted: Lock) -> Lock | None:
        """Return a conflicting lock of another owner, if any."""
        for held in self._locks.get(key, ()):
            if held.owner == wanted.owner or held.owner.kind != wanted.owner.kind:
                continue
            if held.overlaps(wanted.start, wanted.end) and WRITE_LOCK in (held.type, wanted.type):
                return held
        return None

    def put(self, key: FileKey, new: Lock) -> None:
        """Set, change or (UNLOCK) release a lock; split what the owner held there before around it."""
        after: list[Lock] = []
        for held in self._locks.get(key, []):
            if held.owner != new.owner or not held.overlaps(new.start, new.end):
                after.append(held)
                continue
            if held.start < new.start:
                after.append(Lock(held.owner, held.type, held.start, new.start - 1))
            if held.end > new.end:
                after.append(Lock(held.owner, held.type, new.end + 1, held.end))
        if new.type != UNLOCK:
            after.append(new)
        self._locks[key] = after

    def grant_waiters(self, key: FileKey) -> list[Callable[[], None]]:
        """Grant what has become free; the caller runs the answers after it released the mutex."""
        granted: list[Callable[[], None]] = []
        for waiter in list(self.waiters):
            if waiter.key == key and self.conflict(key, waiter.lock) is None:
                self.put(key, waiter.lock)
                self.waiters.remove(waiter)
                granted.append(waiter.grant)
        return granted

    def release_owner(self, key: FileKey, owner: Owner) -> list[Callable[[], None]]:
        """Release all locks of an owner on a file, as a close does."""
        with self.mutex:
            self._locks[key] = [held for held in self._locks.get(key, []) if held.owner != owner]
            return self.grant_waiters(key)

    def release_host(self, host: int) -> tuple[set[FileKey], list[Callable[[], None]]]:
        """Release all locks of a host, as a server does when the host's lease has expired."""
        lost: set[FileKey] = set()
        granted: list[Callable[[], None]] = []
        with self.mutex:
            for key, locks in list(self._locks.items()):
                kept = [held for held in locks if held.owner.host != host]
                if len(kept) != len(locks):
                    self._locks[key] = kept
                    lost.add(key)
                    granted += self.grant_waiters(key)
        return lost, granted


__all__ = ["READ_LOCK", "FileKey", "Lock", "LockTable", "Owner", "Waiter"]
