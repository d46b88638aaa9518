"""Notifications of commits by others: PostgreSQL's LISTEN, on a connection and in a thread of its own.

Started by the store when somebody first waits for a change. Uses a connection of its own, never one of the pool.

Writers notify after their commit, in a separate transaction: NOTIFY in the writing transaction would make all commits
of the cluster wait for each other's disk, because PostgreSQL holds one lock from queueing to the end of the commit. A
writer that dies in between sends no notification, so waiters also check again from time to time.
Source: https://www.postgresql.org/docs/current/sql-notify.html

Behind a pooler, LISTEN would remain in the session that is lent to the next client, which would get the notifications.
There the ``Poller`` is used instead, and waiters check again at short intervals. The same goes for a standby, which is
read-only.
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors as server
from psycopg import sql

from ...errors import JobdbError
from ...system.interrupt_safe_flag import Flag
from .backoff import Backoff
from .sessions import configure_connection

if TYPE_CHECKING:
    from .connections import Address, Connection

LOGGER = logging.getLogger("jobdb.postgresql")
POLL_SEC = 0.25
_FIRST_PAUSE_SEC = 0.05
_LONGEST_PAUSE_SEC = 2.0


def listen(address: Address, channel: str) -> Listener | Poller:
    """Return a listener for commits by others, or a poller if the server's session may be lent to other clients.

    Args:
        address: the server.
        channel: the channel on which writers notify.
    """
    connection = address.connect()
    try:
        if configure_connection(connection).direct:
            return Listener(address, channel, connection)
        why = "is behind a pooler or an address translation"
    except server.ReadOnlySqlTransaction:
        why = "is a standby, which cannot LISTEN"
    except BaseException:
        connection.close()
        raise
    connection.close()
    LOGGER.info("%s %s: polling every %g s instead", address.display_url, why, POLL_SEC)
    return Poller()


class Poller:
    """The substitute for a listener: it reports a possible change at short intervals."""

    def __init__(self) -> None:
        self._closed = Flag()
        self._version = 1

    @property
    def version(self) -> int:
        """A number that grows with every wait."""
        return self._version

    def wait(self, seen: int, timeout_sec: float, wake: Flag | None = None) -> int:
        """Wait for one interval at most, or until ``wake`` is set; return a version other than ``seen``."""
        (wake or self._closed).wait(max(0.0, min(timeout_sec, POLL_SEC)))
        self._version = max(self._version, seen + 1)
        return self._version

    def close(self) -> None:
        """End all waits."""
        self._closed.set()


class Listener:
    """A counter of notifications, updated by a thread. Started when a change is first waited for.

    Args:
        address: the server.
        channel: the channel on which writers notify.
        connection: a direct connection, which the listener takes over.
    """

    def __init__(self, address: Address, channel: str, connection: Connection) -> None:
        self._address = address
        self._channel = channel
        self._waiters: deque[Flag] = deque()  # one per thread that waits
        self._version = 1
        self._connection: Connection | None = self._listen(connection)  # first, so that a failure leaks nothing
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._run, name="jobdb-listener", daemon=True)
        self._thread.start()

    @property
    def version(self) -> int:
        """A number that grows with every notification."""
        return self._version

    def wait(self, seen: int, timeout_sec: float, wake: Flag | None = None) -> int:
        """Wait until the version differs from ``seen``, or for ``timeout_sec``; return the current one.

        ``wake`` is a flag that ends the wait when it is set. A notification sets it, too.
        """
        waiter = wake or Flag()
        try:
            self._waiters.append(waiter)
            if self._version == seen:
                waiter.wait(timeout_sec)
        finally:
            with suppress(ValueError):
                self._waiters.remove(waiter)
        return self._version

    def close(self) -> None:
        """End the thread and the connection."""
        os.write(self._stop_writer, b"x")
        self._thread.join(5)
        os.close(self._stop_writer)
        os.close(self._stop_reader)

    def _listen(self, connection: Connection) -> Connection:
        try:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        except BaseException:
            connection.close()
            raise
        return connection

    def _notify_waiters(self) -> None:
        self._version += 1  # only in the listener's thread
        for waiter in list(self._waiters):
            waiter.set()

    def _run(self) -> None:
        backoff = Backoff(_FIRST_PAUSE_SEC, longest_sec=_LONGEST_PAUSE_SEC, factor=2)
        try:
            while True:
                if self._connection is None:
                    if self._stop_requested(backoff.next()):
                        return
                    with suppress(JobdbError, psycopg.Error):
                        self._connection = self._listen(self._address.connect())
                        backoff.reset()
                        self._notify_waiters()  # notifications sent meanwhile were lost
                elif not self._read_notifications(self._connection):
                    return
        finally:
            if self._connection is not None:
                self._connection.close()

    def _stop_requested(self, pause_sec: float) -> bool:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._stop_reader, selectors.EVENT_READ)
            return bool(waiting.select(pause_sec))

    def _read_notifications(self, connection: Connection) -> bool:
        """Wait for the next notifications; return False if a stop is requested."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._stop_reader, selectors.EVENT_READ)
            waiting.register(connection.fileno(), selectors.EVENT_READ)
            ready = {key.fd for key, _ in waiting.select()}
        if self._stop_reader in ready:
            return False
        try:
            connection.pgconn.consume_input()
            notified = False
            while connection.pgconn.notifies() is not None:
                notified = True
        except psycopg.Error:
            connection.close()
            self._connection = None
            notified = True
        if notified:
            self._notify_waiters()
        return True
