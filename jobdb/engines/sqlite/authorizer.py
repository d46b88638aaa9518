"""What a person's query may touch on SQLite: the registry's views and tables, but for the sealed columns; functions.

SQLite asks for the columns that a statement reads while it prepares it. What is not on these lists is refused: tables
that SQLite makes up (``dbstat``, and in some builds ``sqlite_dbpage``, the file's very bytes), samples of columns
(``sqlite_stat4``), pragmas, attached files, writes. Source: https://sqlite.org/c3ref/set_authorizer.html

It does not ask for columns that a join compares or merges, by ``USING`` or ``NATURAL``, and a ``FULL JOIN`` shows them.
So the compiled program is looked at too: which tables it opens, and which of their columns it takes out.
Source: https://sqlite.org/opcode.html
"""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from jobdb.schema import SEALED_COLUMNS, VIEWS

from ...errors import InvalidInput, Unusable

READABLE_TABLES = frozenset(VIEWS) | {
    "jobs", "specs", "tokens", "events", "outbox", "subscriptions", "gaps", "feeds", "verdict_counts", "refusals",
    "leases", "settings", "imports", "import_lines", "job_records", "sqlite_master", "json_each", "json_tree",
}  # fmt: skip
_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "rtreecheck", "sqlite_log"})


def authorize(operation: int, first: str | None, second: str | None, _database: str | None, _by: str | None) -> int:
    """Answer SQLite's authorizer: reading what is on the lists is allowed, nothing else is.

    Args:
        operation: what a part of the statement would do.
        first: for a read the table, else as SQLite's documentation says.
        second: for a read the column, "" where only rows are counted; for a function its name.
        _by: the view through which it comes, or whatever a statement calls a part of itself.
    """
    if operation == apsw.SQLITE_READ:
        listed = first in READABLE_TABLES or not second  # a common table expression has any name
        return apsw.SQLITE_OK if listed and (first, second) not in SEALED_COLUMNS else apsw.SQLITE_DENY
    if operation in (apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE):
        return apsw.SQLITE_OK
    if operation == apsw.SQLITE_FUNCTION and second not in _REFUSED_FUNCTIONS:
        return apsw.SQLITE_OK
    return apsw.SQLITE_DENY


def check_program(connection: apsw.Connection, sql: str) -> None:
    """Refuse a query whose compiled program reads a table that is on no list, or a sealed column; nothing of it is run.

    Args:
        connection: to the registry, without an authorizer yet.
        sql: the query.

    Raises:
        InvalidInput: it reads what it must not.
        Unusable: this SQLite compiles queries in a form that jobdb does not know.
        apsw.Error: it is no query.
    """
    tables = {1: "sqlite_master"}
    for root, table in connection.execute("SELECT rootpage, tbl_name FROM sqlite_schema WHERE rootpage > 0"):
        tables[root] = table
    sealed = {
        (table, place)
        for of, name in SEALED_COLUMNS
        for table, place in _tables_and_columns(connection, f"SELECT {name} FROM {of}", tables)
        if place is not None
    }
    # Each is found again where it is asked for plainly: so the program is understood.
    if sorted(table for table, _place in sealed) != sorted(table for table, _name in SEALED_COLUMNS):
        raise Unusable(
            "this SQLite compiles queries in a form that jobdb does not know, so it cannot tell what one reads"
        )
    connection.authorizer = authorize
    for table, place in _tables_and_columns(connection, sql, tables):
        if table not in READABLE_TABLES:
            raise InvalidInput(f"{table} is not a view of the registry; use one SELECT on {', '.join(sorted(VIEWS))}")
        if (table, place) in sealed:
            raise InvalidInput(
                f"table {table} holds sealed secrets, and they are not shown; use one SELECT on "
                f"{', '.join(sorted(VIEWS))}"
            )


def _tables_and_columns(
    connection: apsw.Connection, sql: str, tables: dict[int, str]
) -> Iterator[tuple[str, int | None]]:
    """Yield each stored table that a query opens, without a place, and the columns' places that it takes out of it."""
    opened: dict[int, set[str]] = {}
    taken: list[tuple[int, int]] = []
    for _address, name, first, second, third, *_rest in connection.cursor().execute(sql, explain=1):
        if name in ("OpenRead", "ReopenIdx", "OpenWrite") and not third:  # in the registry; temporary tables are ours
            opened.setdefault(first, set()).add(tables.get(second, f"page {second}"))
        elif name == "Column":
            taken.append((first, second))
    yield from ((table, None) for found in opened.values() for table in found)
    yield from ((table, place) for cursor, place in taken for table in opened.get(cursor, ()))
