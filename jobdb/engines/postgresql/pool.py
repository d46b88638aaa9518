"""The pool of connections from one registry to its server: a few at most, each lent to one verb at a time.

Called by the store, once per transaction. Opens, checks and closes connections; executes no verb's statement.

Prior art: psycopg_pool. It keeps a count of its connections, so a Ctrl-C or a soft time limit between ``getconn()`` and
the caller's ``try`` shrinks it for good: after eight of them no connection is left. Here a connection exists as long as
something refers to it. If an exception separates one from its verb, the connection is destroyed, the server rolls its
transaction back, and its slot is free.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
import weakref
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from ...errors import Busy, Unavailable
from ..liveness import closed_error
from .backoff import Backoff
from .connections import PoolSlot, roll_back
from .error_translation import translate
from .sessions import configure_connection, transaction_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .connections import Address, Connection, TransactionMode

MAX_CONNECTIONS = 8
IDLE_SEC = 60.0
"""A connection that has not been used for this long, in seconds, is closed when another one is released."""
_RECHECK_SEC = 0.02
"""The interval at which waiters check again, in seconds: a thread that was interrupted wakes nobody."""
_FIRST_PAUSE_SEC = 0.05
_LONGEST_PAUSE_SEC = 1.0


class _Waiter:
    """A thread that waits for a connection."""

    __slots__ = ("__weakref__", "woken")

    def __init__(self) -> None:
        self.woken = threading.Lock()
        self.woken.acquire()

    def wake(self) -> None:
        if self.woken.locked():
            with suppress(RuntimeError):  # another thread has just done it
                self.woken.release()


class Pool:
    """The connections of one store.

    Args:
        address: the server.
        durability: "full" or "normal".
        busy_sec: how long to wait for a free connection, for the server to come back, and for a lock, in seconds.

    Attributes:
        clients: the names of the connections that were opened.
    """

    def __init__(self, address: Address, *, durability: str, busy_sec: float) -> None:
        self.address = address
        self.clients: deque[str] = deque(maxlen=1000)
        self._durability = durability
        self._busy_sec = busy_sec
        self._idle: deque[Connection] = deque()  # the most recently used one at the right
        self._slots: list[weakref.ref[PoolSlot]] = []
        self._waiters: deque[weakref.ref[_Waiter]] = deque()
        self._lock = threading.RLock()  # entered and exited by C code alone, so `with` leaves no gap
        self._pid = os.getpid()
        self._closed = False

    @contextmanager
    def connection(self, mode: TransactionMode | None = None) -> Iterator[Connection]:
        """Lend a connection until the block is exited; a broken one is replaced.

        Args:
            mode: the kind of transaction to begin on it, with its settings; None for none. The first statement detects
                idle connections that a restart of the server has closed.

        Raises:
            Unavailable: the server could not be reached within the limit.
            Busy: all connections of this registry were in use until the limit.
            InvalidInput: the registry is closed.
        """
        stale = MAX_CONNECTIONS
        held: list[Connection] = []
        try:
            while True:
                self._acquire(held)
                connection = held[0]
                try:
                    connection.execute(self._first_statement(connection, mode), prepare=False)
                except psycopg.Error as error:
                    if stale and connection.closed:
                        stale -= 1
                        _close_connection(connection)
                        held.clear()
                        continue
                    raise translate(error, self.address.display_url, 0.0) from error
                yield connection
                return
        finally:
            self._release(held)

    def close(self) -> None:
        """Close the idle connections; those in use are closed when they are released."""
        self._closed = True
        while self._idle:
            with suppress(IndexError):  # another thread was quicker
                _close_connection(self._idle.pop())
        for reference in list(self._waiters):
            if (waiter := reference()) is not None:
                waiter.wake()

    def _first_statement(self, connection: Connection, mode: TransactionMode | None) -> bytes:
        if mode is None:
            return b"SELECT 1"
        found = connection.begin_statements.get(mode)
        if found is None:
            durability = self._durability if mode.writes else None
            local = transaction_settings(connection, durability=durability, busy_sec=self._busy_sec)
            found = connection.begin_statements[mode] = f"{mode.begin}; {local}".encode()
        return found

    # -- acquiring and releasing

    def _acquire(self, held: list[Connection]) -> None:
        """Put a connection into the out-parameter ``held``.

        It is not returned, so that an exception in between either destroys it or leaves it where it is released.
        """
        if self._closed:
            raise closed_error(self.address.display_url)
        if self._waiters or not self._acquire_idle(held):
            self._wait_for_connection(held)

    def _acquire_idle(self, held: list[Connection]) -> bool:
        try:
            held.append(self._idle.pop())
        except IndexError:
            return False
        return True

    def _wait_for_connection(self, held: list[Connection]) -> None:
        """Acquire a connection that is released, or open another one, in the order of arrival."""
        started, backoff = time.monotonic(), Backoff(_FIRST_PAUSE_SEC, longest_sec=_LONGEST_PAUSE_SEC, factor=2)
        waiter = _Waiter()
        self._waiters.append(weakref.ref(waiter))
        failure: Unavailable | None = None
        not_before = 0.0
        try:
            while not self._closed:
                if self._first_waiter() is waiter:
                    if self._acquire_idle(held):
                        return
                    if time.monotonic() >= not_before and (slot := self._free_slot()) is not None:
                        try:
                            self._make(held, slot)
                            return
                        except Unavailable as error:
                            failure, not_before = error, time.monotonic() + backoff.next()
                waited = time.monotonic() - started
                if waited > self._busy_sec:
                    raise failure or Busy(
                        f"all {MAX_CONNECTIONS} connections of this registry to {self.address.display_url} were in use "
                        f"for {waited:.1f} s. Nothing was written: use fewer threads, or allow a longer wait",
                        waited_sec=waited,
                    )
                waiter.woken.acquire(timeout=min(_RECHECK_SEC, self._busy_sec - waited + 0.001))
            raise closed_error(self.address.display_url)
        finally:
            with self._lock:
                self._waiters = deque(reference for reference in self._waiters if reference() not in (None, waiter))
            self._wake_first()  # there may be another free connection

    def _first_waiter(self) -> _Waiter | None:
        with self._lock:
            while self._waiters:
                waiter = self._waiters[0]()
                if waiter is not None:
                    return waiter
                self._waiters.popleft()
        return None

    def _wake_first(self) -> None:
        if self._waiters and (waiter := self._first_waiter()) is not None:
            waiter.wake()

    def _free_slot(self) -> PoolSlot | None:
        with self._lock:
            self._slots = [kept for kept in self._slots if (slot := kept()) is not None and not slot.free]
            if len(self._slots) >= MAX_CONNECTIONS:
                return None
            slot = PoolSlot()
            self._slots.append(weakref.ref(slot))
            return slot

    def _make(self, held: list[Connection], slot: PoolSlot) -> None:
        try:
            held.append(self.address.connect())
            connection = held[0]
            connection.slot = slot
            connection.adapters.register_dumper(int, Int8Dumper)
            connection.client = uuid.uuid4().hex
            connection.begin_statements = {}
            self.clients.append(connection.client)
            # Nothing is set in its session, which a pooler may lend to another client.
            connection.session = configure_connection(connection)
        except BaseException as error:
            slot.free = True
            while held:
                held.pop().close()
            if isinstance(error, psycopg.Error):
                raise translate(error, self.address.display_url, 0.0) from error
            raise

    def _release(self, held: list[Connection]) -> None:
        """Return the connection to the pool. If this is interrupted, it is destroyed, and never lent twice."""
        if os.getpid() != self._pid:
            return  # forked in the block: it is the parent's, and must not be used
        try:
            if held and self._reset_for_reuse(held[0]):
                held[0].idle_since = time.monotonic()
                self._idle.append(held.pop())
            self._close_unused()
        except BaseException:
            if held:
                _close_connection(held[0])
            raise
        finally:
            held.clear()
            self._wake_first()
        if self._closed:
            self.close()

    def _reset_for_reuse(self, connection: Connection) -> bool:
        status = connection.info.transaction_status
        if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            roll_back(connection)
            status = connection.info.transaction_status
        if status == TransactionStatus.IDLE:
            return True
        _close_connection(connection)  # broken, or interrupted in the middle of a statement
        return False

    def _close_unused(self) -> None:
        oldest = time.monotonic() - IDLE_SEC
        while self._idle and self._idle[0].idle_since < oldest:
            with suppress(IndexError):
                unused = self._idle.popleft()
                if unused.idle_since < oldest:
                    _close_connection(unused)
                else:
                    self._idle.append(unused)  # another thread took the one that was examined


def _close_connection(connection: Connection) -> None:
    if connection.slot is not None:
        connection.slot.free = True
    connection.close()
