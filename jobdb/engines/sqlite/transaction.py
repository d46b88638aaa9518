"""Named statements inside one transaction of a SQLite connection."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ..statements import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import apsw

    from ..sql.transaction import Row
    from ..statements import PositionalStatements


class SqliteTransaction:
    """Runs named statements inside one transaction."""

    __slots__ = ("_clock", "_connection", "_execute", "_now", "_statements")

    def __init__(self, connection: apsw.Connection, statements: PositionalStatements, clock: Callable[[], int]) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._statements = statements
        self._clock = clock
        self._now: int | None = None

    @property
    def now_ms(self) -> int:
        """The transaction's one moment: Unix time in milliseconds."""
        if self._now is None:
            self._now = self._clock()
        return self._now

    def lock_jobs(self, job_ids: Iterable[str]) -> None:
        """Nothing to do: an immediate transaction keeps all other writers off the whole database."""

    def one(self, name: str, /, **parameters: Any) -> Row | None:
        sql, values = self._statements[name]
        return self._execute(sql, values(parameters)).fetchone()

    def all(self, name: str, /, **parameters: Any) -> list[Row]:
        sql, values = self._statements[name]
        return self._execute(sql, values(parameters)).fetchall()

    def iterate(self, name: str, /, **parameters: Any) -> Iterator[Row]:
        sql, values = self._statements[name]
        return iter(self._execute(sql, values(parameters)))

    def run(self, name: str, /, **parameters: Any) -> int:
        sql, values = self._statements[name]
        self._execute(sql, values(parameters)).fetchall()
        return self._connection.changes()

    def run_many(self, name: str, /, parameters: Iterable[Mapping[str, Any]]) -> None:
        sql, values = self._statements[name]
        self._connection.executemany(sql, map(values, parameters))

    def run_rows(self, name: str, /, names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        sql, _values = self._statements[name]
        wanted = tuple(parameters(sql))
        if names != wanted:
            rows = map(itemgetter(*(names.index(name) for name in wanted)), rows)
        self._connection.executemany(sql, rows)
