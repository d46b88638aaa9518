"""Hears that others have committed: PostgreSQL's LISTEN, on a connection and a thread of its own.

Writers notify after their commit, in a transaction of its own: NOTIFY inside of the writing one would make all commits
of the cluster wait for each other's disk, because PostgreSQL holds one lock from the queueing to the end of the commit.
A writer that dies in between leaves a notification out, so whoever waits looks again from time to time anyway.
Source: https://www.postgresql.org/docs/current/sql-notify.html
"""

from __future__ import annotations

import os
import selectors
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from ...errors import JobdbError

if TYPE_CHECKING:
    from .connections import Address, Connection

_FIRST_PAUSE_SEC = 0.05
_LONGEST_PAUSE_SEC = 2.0


class Listener:
    """Counts notifications. Started when somebody first waits.

    Args:
        address: the server.
        channel: where writers notify.
    """

    def __init__(self, address: Address, channel: str) -> None:
        self._address = address
        self._channel = channel
        self._news = threading.Condition()
        self._version = 1
        self._connection: Connection | None = self._listen()  # first: a server that is away must cost nothing
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._run, name="jobdb-listener", daemon=True)
        self._thread.start()

    @property
    def version(self) -> int:
        """A number that grows with every notification."""
        return self._version

    def wait(self, seen: int, timeout_sec: float) -> int:
        """Waits until the version differs from ``seen`` or the time is over; returns the present one."""
        with self._news:
            self._news.wait_for(lambda: self._version != seen, timeout_sec)
            return self._version

    def close(self) -> None:
        """Ends the thread and the connection."""
        os.write(self._stop_writer, b"x")
        self._thread.join(5)
        os.close(self._stop_writer)
        os.close(self._stop_reader)

    def _listen(self) -> Connection:
        connection = self._address.connect()
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        return connection

    def _bump(self) -> None:
        with self._news:
            self._version += 1
            self._news.notify_all()

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SEC
        try:
            while True:
                if self._connection is None:
                    if self._stopped(pause):
                        return
                    pause = min(pause * 2, _LONGEST_PAUSE_SEC)
                    with suppress(JobdbError, psycopg.Error):
                        self._connection = self._listen()
                        pause = _FIRST_PAUSE_SEC
                        self._bump()  # what was said meanwhile was said to nobody
                elif not self._heard(self._connection):
                    return
        finally:
            if self._connection is not None:
                self._connection.close()

    def _stopped(self, pause_sec: float) -> bool:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._stop_reader, selectors.EVENT_READ)
            return bool(waiting.select(pause_sec))

    def _heard(self, connection: Connection) -> bool:
        """Waits for the next notifications; False when it is time to stop."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._stop_reader, selectors.EVENT_READ)
            waiting.register(connection.fileno(), selectors.EVENT_READ)
            ready = {key.fd for key, _ in waiting.select()}
        if self._stop_reader in ready:
            return False
        try:
            connection.pgconn.consume_input()
            heard = False
            while connection.pgconn.notifies() is not None:
                heard = True
        except psycopg.Error:
            connection.close()
            self._connection = None
            heard = True
        if heard:
            self._bump()
        return True
