"""Named statements in one transaction of a SQLite connection.

Called by the verbs, which know it as ``Transaction``; created by the read and the write path. Never begins
or ends a transaction.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ..statements import POSITIONAL, parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import apsw

    from ..statements import Statement
    from ..store import Row


ROWS_PER_INSERT = 50
"""The number of rows per INSERT if many are inserted: more would save little, and the statement stays cached."""


class SqliteTransaction:
    """The named statements of one transaction; see `engines.store.Transaction`."""

    __slots__ = ("_clock", "_connection", "_execute", "_now")

    def __init__(self, connection: apsw.Connection, clock: Callable[[], int]) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._clock = clock
        self._now: int | None = None

    @property
    def now_ms(self) -> int:
        """The time of the transaction, the same throughout: Unix time in milliseconds."""
        if self._now is None:
            self._now = self._clock()
        return self._now

    def lock_jobs(self, job_ids: Iterable[str]) -> None:
        """Do nothing: an immediate transaction locks the whole database against other writers."""

    def one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        sql, values = POSITIONAL[statement]
        return self._execute(sql, values(parameters)).fetchone()

    def all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        sql, values = POSITIONAL[statement]
        return self._execute(sql, values(parameters)).fetchall()

    def iterate(self, statement: Statement, /, **parameters: Any) -> Iterator[Row]:
        sql, values = POSITIONAL[statement]
        return iter(self._execute(sql, values(parameters)))

    def run(self, statement: Statement, /, **parameters: Any) -> int:
        sql, values = POSITIONAL[statement]
        self._execute(sql, values(parameters)).fetchall()
        return self._connection.changes()

    def run_many(self, statement: Statement, /, parameters: Iterable[Mapping[str, Any]]) -> None:
        sql, values = POSITIONAL[statement]
        self._execute_rows(sql, map(values, parameters))

    def run_rows(self, statement: Statement, /, names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        sql, _values = POSITIONAL[statement]
        wanted = tuple(parameters(sql))
        if names != wanted:
            rows = map(itemgetter(*(names.index(name) for name in wanted)), rows)
        self._execute_rows(sql, iter(rows))

    def _execute_rows(self, sql: str, rows: Iterator[tuple[Any, ...]]) -> None:
        """Execute a statement once per row, or once per `ROWS_PER_INSERT` rows where it inserts them."""
        first = list(islice(rows, ROWS_PER_INSERT))
        multi_row = _multi_row_insert(sql) if len(first) == ROWS_PER_INSERT else None
        if multi_row is None:
            self._connection.executemany(sql, chain(first, rows))
            return
        rest: list[tuple[Any, ...]] = []

        def batches() -> Iterator[list[Any]]:
            batch = first
            while len(batch) == ROWS_PER_INSERT:
                yield list(chain.from_iterable(batch))
                batch = list(islice(rows, ROWS_PER_INSERT))
            rest.extend(batch)

        self._connection.executemany(multi_row, batches())
        self._connection.executemany(sql, rest)


@cache
def _multi_row_insert(sql: str) -> str | None:
    """Return the statement with `ROWS_PER_INSERT` rows; None unless it inserts a row of parameters and numbers.

    Each execution has a cost besides that of its rows: the statement cache, the start and the end in the driver and in
    SQLite, and for AUTOINCREMENT the update of ``sqlite_sequence``.
    """
    match = re.fullmatch(r"(INSERT INTO [^:]*VALUES\s*)(\((?::\w+|\d+)(?:,\s*(?::\w+|\d+))*\))([^:]*)", sql)
    if match is None:
        return None
    prefix, row, suffix = match.groups()
    row, values = re.subn(r":\w+", "?", row)
    if values != len(tuple(parameters(sql))):
        return None  # a parameter occurs twice
    return prefix + ",".join([row] * ROWS_PER_INSERT) + suffix
