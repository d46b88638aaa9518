"""Having a database to oneself: a lock that SQLite keeps until the connection is closed, in WAL mode too."""

from __future__ import annotations

from typing import Any, Protocol


class _Connection(Protocol):
    """A connection of apsw or of the standard library's sqlite3."""

    def execute(self, sql: str, /) -> Any:
        """Run one statement."""
        ...


def lock_exclusively(connection: _Connection) -> None:
    """Take SQLite's exclusive lock; succeeds only while nobody else has the database open in WAL mode, or writes to it.

    In this locking mode the lock outlives the transaction. Where it is not granted, SQLite keeps the locks that it got
    so far: close the connection before trying again.

    Raises:
        apsw.BusyError, sqlite3.OperationalError: somebody else has the database open.
    """
    for statement in ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "COMMIT"):
        connection.execute(statement)
