"""Exclusive access to a database: a lock that SQLite keeps until the connection is closed, in WAL mode too.

Called by the migrations, by the ``init`` command with ``--shared``, and by restore. Executes statements on its caller's
connection; opens and closes none.
"""

from __future__ import annotations

from typing import Any, Protocol


class _Connection(Protocol):
    """A connection of apsw or of the standard library's sqlite3."""

    def execute(self, sql: str, /) -> Any:
        """Run one statement."""
        ...


def lock_exclusively(connection: _Connection) -> None:
    """Acquire SQLite's exclusive lock, which fails if others have the database open in WAL mode, or write to it.

    In this locking mode the lock outlives the transaction. If it is not granted, SQLite keeps the locks that it has got
    so far: close the connection before you try again.

    Raises:
        apsw.BusyError, sqlite3.OperationalError: somebody else has the database open.
    """
    for statement in ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "COMMIT"):
        connection.execute(statement)
