"""The connections of a store: opened with its settings, and with a limit on how long they wait for a lock.

Called by the store, which opens one connection for writes, and by the read path, which opens another when it is first
needed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import apsw

from .error_translation import translate
from .gate import jitter
from .pragmas import apply_settings

if TYPE_CHECKING:
    from pathlib import Path

    from .pragmas import Setting

STATEMENT_CACHE = 200
_SHORT_SLEEP_SEC = 50e-6
"""Among writers that queue at the gate, SQLite's own lock is held only briefly, by a checkpoint or a recovery."""
_LONG_SLEEP_SEC = 5e-3


class BusyWait:
    """The busy handler of a connection, which limits how long it waits for a lock that another connection holds.

    SQLite calls it again and again, and passes only the number of calls. So whatever is about to use the connection
    sets `started`, under the connection's mutex: the limit counts from then.

    Args:
        limit_sec: the longest wait, in seconds.
        gated: writers queue at the gate, so the lock is free soon.
        owner: the store. The connection keeps its handler alive and with it the store, by which a fork finds all
            connections that are open.

    Attributes:
        started: when the current use of the connection began to wait, by ``time.monotonic()``.
    """

    __slots__ = ("_limit_sec", "_longest_sec", "_owner", "started")

    def __init__(self, limit_sec: float, *, gated: bool, owner: object) -> None:
        self._limit_sec = limit_sec
        self._longest_sec = _SHORT_SLEEP_SEC if gated else _LONG_SLEEP_SEC
        self._owner = owner
        self.started = 0.0

    def expire(self) -> None:
        """Make the connection wait for no lock until `started` is set again."""
        self.started = time.monotonic() - self._limit_sec

    def __call__(self, _count: int) -> bool:
        """Sleep briefly; return False when the limit is reached."""
        if time.monotonic() - self.started > self._limit_sec:
            return False
        time.sleep(jitter(0.4 * self._longest_sec, self._longest_sec))
        return True


def connect(
    path: Path, *, journal: str, settings: list[Setting], busy_wait: BusyWait, busy_sec: float
) -> apsw.Connection:
    """Open a connection with the store's settings.

    Args:
        path: the database file; it exists.
        journal: its journal mode, "wal" or "delete"; the file is put into this mode.
        settings: the pragmas to apply.
        busy_wait: the connection's busy handler.
        busy_sec: how long to wait for others who use the file, in seconds.

    Raises:
        Busy, StorageFailed, NotAJobdbDatabase, Unusable: it cannot be opened.
    """
    started = time.monotonic()
    while True:
        try:
            return _try_to_connect(path, journal, settings, busy_wait, started)
        except apsw.BusyError as error:
            # If two processes put a new file into WAL mode at the same time, SQLite refuses one without waiting.
            waited = time.monotonic() - started
            if waited > busy_sec:
                raise translate(error, path, waited) from error
            time.sleep(jitter(1e-3, 5e-3))
        except apsw.Error as error:
            raise translate(error, path, time.monotonic() - started) from error


def _try_to_connect(
    path: Path, journal: str, settings: list[Setting], busy_wait: BusyWait, started: float
) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=STATEMENT_CACHE)
    try:
        connection.set_busy_handler(busy_wait)
        busy_wait.started = started
        if str(connection.pragma("journal_mode")).lower() != journal:
            connection.pragma("journal_mode", journal)
        apply_settings(connection, settings)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def close_without_checkpoint(connection: apsw.Connection) -> None:
    """Close a connection so that SQLite neither copies nor removes the WAL, whose name may lead to another file."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close()


def roll_back(connection: apsw.Connection) -> None:
    """Roll back the connection's transaction, if there is one."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except apsw.Error:
        pass  # SQLite has rolled back on its own, on a full disk or an I/O error
