"""The locks of one host of the two-host file server, answered in a separate thread.

Used by host_filesystem.py. Telling the kernel to drop its cache may make it write back first, which the thread for
requests must answer: so locks cannot be answered there. Locks go to the table that all hosts share, unless
the settings say that this network lies about them.
"""

from __future__ import annotations

import errno
import os
import queue
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.fuse import protocol
from tests.support.fuse.protocol import Op
from tests.support.twohosts.lock_table import FileKey, Lock, LockTable, Owner, Waiter


@dataclass(frozen=True)
class Settings:
    """The behaviour of this network; see the help of server.py."""

    backing: str
    cache: str
    locks: str
    attr_sec: float
    entry_sec: float
    negative_entry_sec: float


@dataclass
class Request:
    """One request of the kernel."""

    operation: int
    unique: int
    node: int
    body: bytes
    uid: int
    gid: int


class HostLocks:
    """The thread that takes lock requests from a queue and answers them."""

    def __init__(
        self,
        settings: Settings,
        table: LockTable,
        number: int,
        fd: int,
        *,
        send: Callable[[int, int, bytes], None],
        key_of: Callable[[int], FileKey],
    ) -> None:
        self._settings = settings
        self._table = table
        self._number = number
        self._fd = fd
        self._answer = send
        self._key_of = key_of
        self.queue: queue.Queue[Request | Callable[[], None]] = queue.Queue()

    def _send(self, unique: int, code: int, body: bytes = b"") -> None:
        self._answer(unique, code, body)

    def serve(self) -> None:
        """Answer lock requests, and waiters that were granted."""
        while True:
            item = self.queue.get()
            try:
                if isinstance(item, Request):
                    self._lock(item)
                else:
                    item()
            except OSError as error:
                if isinstance(item, Request):
                    self._send(item.unique, error.errno or errno.EIO)

    def _lock(self, request: Request) -> None:
        if request.operation == Op.INTERRUPT:
            self._interrupt(struct.unpack_from("<Q", request.body)[0])
            return
        if self._settings.locks == "none":
            self._send(request.unique, errno.ENOLCK)
            return
        _, owner, start, end, kind, _, flags, _ = protocol.LOCK_IN.unpack_from(request.body)
        wanted = Lock(Owner(self._number, flags & 1, owner), kind, start, end)
        key = self._key_of(request.node)
        if request.operation == Op.GETLK:
            self._answer_getlk(request.unique, key, wanted)
        elif kind == protocol.UNLOCK:
            self._invalidate_pages(request.node)  # writes mapped pages back first, as NFS does
            with self._table.mutex:
                self._table.put(key, wanted)
                granted = self._table.grant_waiters(key)
            deliver_grants(granted)
            self._send(request.unique, 0)
        else:
            self._set_lock(request, key, wanted)

    def _set_lock(self, request: Request, key: FileKey, wanted: Lock) -> None:
        def grant() -> None:
            self._invalidate_pages(request.node)
            self._send(request.unique, 0)

        granted: list[Callable[[], None]] = []
        with self._table.mutex:
            if self._table.conflict(key, wanted):
                self._table.denials += 1
                if request.operation == Op.SETLKW:
                    number = (self._number, request.unique)
                    waiter = Waiter(key, wanted, number, lambda: self.queue.put(grant))
                    self._table.waiters.append(waiter)
                    return
                taken = False
            else:
                self._table.put(key, wanted)
                self._table.grants += 1
                granted = self._table.grant_waiters(key)  # from write to read: others may acquire it
                taken = True
        deliver_grants(granted)
        if taken:
            grant()
        else:
            self._send(request.unique, errno.EAGAIN)

    def _answer_getlk(self, unique: int, key: FileKey, wanted: Lock) -> None:
        with self._table.mutex:
            held = self._table.conflict(key, wanted)
        if held:
            self._send(unique, 0, protocol.LOCK_OUT.pack(held.start, held.end, held.type, 0))
        else:
            self._send(unique, 0, protocol.LOCK_OUT.pack(wanted.start, wanted.end, protocol.UNLOCK, 0))

    def _interrupt(self, unique: int) -> None:
        with self._table.mutex:
            for waiter in list(self._table.waiters):
                if waiter.request == (self._number, unique):
                    self._table.waiters.remove(waiter)
                    self._send(unique, errno.EINTR)

    def _invalidate_pages(self, node: int) -> None:
        """Make the kernel forget a file's pages, as the NFS client does when it takes or releases a lock."""
        if self._settings.cache != "nfs":
            return
        body = protocol.INVALIDATE_INODE.pack(node, 0, 0)
        head = protocol.OUT_HEADER.pack(protocol.OUT_HEADER.size + len(body), protocol.NOTIFY_INVALIDATE_INODE, 0)
        try:
            os.write(self._fd, head + body)
        except OSError:
            return  # it had nothing to forget


def deliver_grants(answers: list[Callable[[], None]]) -> None:
    """Answer the waiters whose locks were granted."""
    for answer in answers:
        answer()
