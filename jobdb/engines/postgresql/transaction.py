"""Named statements in one transaction of a PostgreSQL connection.

Writers run concurrently at READ COMMITTED: a verb first locks its jobs (``lock_jobs``) and then reads them, so that it
sees everything that the previous writer committed. Created by the store; the verbs know it as ``Transaction``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .connections import TransactionMode
from .dialect import DIALECT, FORMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import psycopg

    from ..statements import Statement
    from ..store import Row
    from .connections import Connection

WRITE = TransactionMode("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", writes=True)
READ = TransactionMode("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", writes=False)
QUERY = TransactionMode("BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE", writes=True)
"""An ad-hoc query: it may create the temporary view by which it is checked, and is rolled back."""
CLEANUP = TransactionMode("BEGIN", writes=True)

_ROWS_AT_A_TIME = 1000


class PostgresTransaction:
    """The named statements of one transaction of a connection; see `engines.store.Transaction`.

    Attributes:
        notifies: the transaction has changed something that somebody may be waiting for.
    """

    __slots__ = ("_connection", "_cursor", "_now", "_xid", "notifies")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._now: int | None = None
        self._xid: str | None = None
        self.notifies = False

    def _execute(self, statement: Statement, parameters: Mapping[str, Any]) -> psycopg.Cursor[Row]:
        text, notifies = FORMS[statement]
        cursor = self._cursor.execute(text, parameters)
        # A claim that found nothing wakes nobody: idle workers would wake each other.
        self.notifies = self.notifies or (notifies and cursor.rowcount > 0)
        return cursor

    @property
    def now_ms(self) -> int:
        """The transaction's time by the server's clock: when its jobs were locked, or when it is first read."""
        if self._now is None:
            row = self.one(DIALECT.now_ms)
            assert row is not None
            self._now = row[0]
        return self._now

    def lock_jobs(self, job_ids: Iterable[str]) -> None:
        """Lock these jobs, in a fixed order, until the transaction ends; also leave the writer's mark."""
        row = self.one(DIALECT.lock_jobs, job_ids=sorted(set(job_ids)), **self._writer_parameters())
        assert row is not None
        moment, self._xid = row
        self._now = moment if self._now is None else self._now

    def mark_writer(self) -> str | None:
        """Leave the mark by which the commit is recognized; return the transaction's id, None if nothing was written.

        ``lock_jobs`` leaves it too, in its own round trip.
        """
        if self._xid is None and (row := self.one(DIALECT.mark_writer, **self._writer_parameters())):
            self._xid = row[0]
        return self._xid

    def _writer_parameters(self) -> dict[str, Any]:
        return {"client": self._connection.client, "number": self._connection.transaction_count}

    def one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        """Return the first row, or None."""
        return self._execute(statement, parameters).fetchone()

    def all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        """Return all rows."""
        return self._execute(statement, parameters).fetchall()

    def iterate(self, statement: Statement, /, **parameters: Any) -> Iterator[Row]:
        """Return the rows one by one, in bounded memory."""
        with self._connection.cursor(name=f"jobdb_{statement.name}") as cursor:
            cursor.itersize = _ROWS_AT_A_TIME
            cursor.execute(FORMS[statement].text, parameters)
            yield from cursor

    def run(self, statement: Statement, /, **parameters: Any) -> int:
        """Execute a statement; return how many rows it changed."""
        return self._execute(statement, parameters).rowcount

    def run_many(self, statement: Statement, /, parameters: Iterable[Mapping[str, Any]]) -> None:
        """Execute a statement once per set of parameters."""
        text, notifies = FORMS[statement]
        self._cursor.executemany(text, list(parameters))
        self.notifies = self.notifies or (notifies and self._cursor.rowcount > 0)

    def run_rows(self, statement: Statement, /, names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute a statement once per row, whose values are those of the parameters ``names``."""
        self.run_many(statement, [dict(zip(names, row, strict=True)) for row in rows])
