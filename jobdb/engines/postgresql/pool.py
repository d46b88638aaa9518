"""The connections of one registry to its server: at most a few, each lent to one verb at a time.

Prior art: psycopg_pool. It counts its connections in a number, so a Ctrl-C or a soft time limit between ``getconn()``
and the caller's ``try`` makes it smaller for good: after eight of them nobody gets a connection any more. Here a
connection exists for as long as something refers to it. One that an exception has cut off from its verb is destroyed,
the server rolls its transaction back, and its place is free.
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

from ...errors import Busy, InvalidInput, Unavailable
from .failures import translate
from .sessions import introduce, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .connections import Address, Connection

MOST_CONNECTIONS = 8
IDLE_SEC = 60.0
"""A connection that was not used for so long is closed by whoever uses another."""
_LOOK_AGAIN_SEC = 0.02
"""Who was cut off wakes nobody: whoever waits looks again after this time."""
_LONGEST_PAUSE_SEC = 1.0


class Place:
    """One of the pool's connections, to be made or made; free again when it is closed or nothing refers to it.

    Attributes:
        free: it is closed, and only a traceback may refer to it still.
    """

    __slots__ = ("__weakref__", "free")

    def __init__(self) -> None:
        self.free = False


class _Waiter:
    """One who waits for a connection."""

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
        busy_sec: how long to wait for a free connection, for a server that comes back, and for a lock, in seconds.

    Attributes:
        clients: the names of the connections that were made.
    """

    def __init__(self, address: Address, *, durability: str, busy_sec: float) -> None:
        self.address = address
        self.clients: deque[str] = deque(maxlen=1000)
        self._durability = durability
        self._busy_sec = busy_sec
        self._idle: deque[Connection] = deque()  # the one used last at the right
        self._places: list[weakref.ref[Place]] = []
        self._waiters: deque[weakref.ref[_Waiter]] = deque()
        self._lock = threading.RLock()  # entered and left by C code alone: `with` leaves no gap
        self._pid = os.getpid()
        self._closed = False

    @contextmanager
    def connection(self, begin: str = "SELECT 1") -> Iterator[Connection]:
        """Lend a connection until the block is left; a broken one is replaced.

        Args:
            begin: the first statement; one that begins a transaction is followed by the transaction's settings. Idle
                connections that a restart of the server has cut are found by it.

        Raises:
            Unavailable: the server could not be reached within the limit.
            Busy: all connections of this registry were in use for so long.
            InvalidInput: the registry is closed.
        """
        stale = MOST_CONNECTIONS
        held: list[Connection] = []
        try:
            while True:
                self._take(held)
                connection = held[0]
                try:
                    connection.execute(self._first(connection, begin), prepare=False)
                except psycopg.Error as error:
                    if stale and connection.closed:
                        stale -= 1
                        _end(connection)
                        held.clear()
                        continue
                    raise translate(error, self.address.shown, 0.0) from error
                yield connection
                return
        finally:
            self._give_back(held)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        self._closed = True
        while self._idle:
            with suppress(IndexError):  # another thread was quicker
                _end(self._idle.pop())
        for reference in list(self._waiters):
            if (waiter := reference()) is not None:
                waiter.wake()

    def _first(self, connection: Connection, begin: str) -> bytes:
        if not begin.startswith("BEGIN"):
            return begin.encode()
        found = connection.begins.get(begin)
        if found is None:
            durability = None if begin.endswith("READ ONLY") else self._durability
            local = settings(connection, durability=durability, busy_sec=self._busy_sec)
            found = connection.begins[begin] = f"{begin}; {local}".encode()
        return found

    # -- taking and giving back

    def _take(self, held: list[Connection]) -> None:
        """Put a connection into ``held``. Whatever ends this in between destroys the connection, or leaves it there."""
        if self._closed:
            raise InvalidInput(f"this registry on {self.address.shown} is closed; open a new one")
        if self._waiters or not self._take_idle(held):
            self._wait_for_one(held)

    def _take_idle(self, held: list[Connection]) -> bool:
        try:
            held.append(self._idle.pop())
        except IndexError:
            return False
        return True

    def _wait_for_one(self, held: list[Connection]) -> None:
        """In the order of arrival, take what is given back or make another connection."""
        started, pause = time.monotonic(), 0.05
        me = _Waiter()
        self._waiters.append(weakref.ref(me))
        failure: Unavailable | None = None
        not_before = 0.0
        try:
            while not self._closed:
                if self._first_waiter() is me:
                    if self._take_idle(held):
                        return
                    if time.monotonic() >= not_before and (place := self._free_place()) is not None:
                        try:
                            self._make(held, place)
                            return
                        except Unavailable as error:
                            failure, not_before = error, time.monotonic() + pause
                            pause = min(2 * pause, _LONGEST_PAUSE_SEC)
                waited = time.monotonic() - started
                if waited > self._busy_sec:
                    raise failure or Busy(
                        f"all {MOST_CONNECTIONS} connections of this registry to {self.address.shown} were in use for "
                        f"{waited:.1f} s. Nothing was written: use fewer threads, or allow a longer wait",
                        waited_sec=waited,
                    )
                me.woken.acquire(timeout=min(_LOOK_AGAIN_SEC, self._busy_sec - waited + 0.001))
            raise InvalidInput(f"this registry on {self.address.shown} is closed; open a new one")
        finally:
            with self._lock:
                self._waiters = deque(reference for reference in self._waiters if reference() not in (None, me))
            self._wake_first()  # there may be another one to be had

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

    def _free_place(self) -> Place | None:
        with self._lock:
            self._places = [kept for kept in self._places if (place := kept()) is not None and not place.free]
            if len(self._places) >= MOST_CONNECTIONS:
                return None
            place = Place()
            self._places.append(weakref.ref(place))
            return place

    def _make(self, held: list[Connection], place: Place) -> None:
        try:
            held.append(self.address.connect())
            connection = held[0]
            connection.place = place
            connection.adapters.register_dumper(int, Int8Dumper)
            connection.client = uuid.uuid4().hex
            connection.begins = {}
            self.clients.append(connection.client)
            # Nothing is set in its session: a pooler may lend that to somebody else.
            introduce(connection)
        except BaseException as error:
            place.free = True
            while held:
                held.pop().close()
            if isinstance(error, psycopg.Error):
                raise translate(error, self.address.shown, 0.0) from error
            raise

    def _give_back(self, held: list[Connection]) -> None:
        """Let others have it. What is cut off in here is destroyed, and never lent to two."""
        if os.getpid() != self._pid:
            return  # forked in the block: it is the parent's, and nothing may be said on it
        try:
            if held and self._is_at_rest(held[0]):
                held[0].idle_since = time.monotonic()
                self._idle.append(held.pop())
            self._close_unused()
        except BaseException:
            if held:
                _end(held[0])
            raise
        finally:
            held.clear()
            self._wake_first()
        if self._closed:
            self.close()

    def _is_at_rest(self, connection: Connection) -> bool:
        status = connection.info.transaction_status
        if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            with suppress(psycopg.Error):
                connection.execute(b"ROLLBACK")
            status = connection.info.transaction_status
        if status == TransactionStatus.IDLE:
            return True
        _end(connection)  # broken, or cut off in the middle of a statement
        return False

    def _close_unused(self) -> None:
        oldest = time.monotonic() - IDLE_SEC
        while self._idle and self._idle[0].idle_since < oldest:
            with suppress(IndexError):
                unused = self._idle.popleft()
                if unused.idle_since < oldest:
                    _end(unused)
                else:
                    self._idle.append(unused)  # another thread took the one that was looked at


def _end(connection: Connection) -> None:
    if connection.place is not None:
        connection.place.free = True
    connection.close()
