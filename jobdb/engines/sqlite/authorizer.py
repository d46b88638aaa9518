"""The rules for an ad-hoc query on SQLite: it may read the registry's views and tables, except sealed columns.

Called by the query process. SQLite asks its authorizer for the columns that a statement reads, while it prepares the
statement. What is not on these lists is refused: virtual tables of SQLite's own (``dbstat``, and in some builds
``sqlite_dbpage``, the raw bytes of the file), samples of columns (``sqlite_stat4``), pragmas, attached files, writes.
Source: https://sqlite.org/c3ref/set_authorizer.html

SQLite does not ask for columns that a join compares or merges by ``USING`` or ``NATURAL``, and a ``FULL JOIN`` shows
them. So the compiled program is checked too: which tables it opens, and which of their columns it reads.
Source: https://sqlite.org/opcode.html
"""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from jobdb.schema import SEALED_COLUMNS, VIEWS

from ...errors import InvalidInput, Unusable

READABLE_TABLES = frozenset(VIEWS) | {
    "jobs", "specs", "tokens", "events", "outbox", "subscriptions", "gaps", "feeds", "verdict_counts", "refusals",
    "leases", "workers", "attempts", "questions", "settings", "imports", "import_lines", "job_records", "sqlite_master",
    "json_each", "json_tree",
}  # fmt: skip
_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "rtreecheck", "sqlite_log"})


def authorize(
    operation: int, table: str | None, column_or_function: str | None, _database: str | None, _origin: str | None
) -> int:
    """Allow reads of listed tables and calls of functions, and refuse everything else: SQLite's authorizer callback.

    Args:
        operation: the operation of a part of the statement.
        table: for a read the table, otherwise as in SQLite's documentation.
        column_or_function: for a read the column, "" where only rows are counted; for a function its name.
        _origin: the view or the common table expression that the access comes from.
    """
    if operation == apsw.SQLITE_READ:
        listed = table in READABLE_TABLES or not column_or_function  # a common table expression has any name
        return apsw.SQLITE_OK if listed and (table, column_or_function) not in SEALED_COLUMNS else apsw.SQLITE_DENY
    if operation in (apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE):
        return apsw.SQLITE_OK
    if operation == apsw.SQLITE_FUNCTION and column_or_function not in _REFUSED_FUNCTIONS:
        return apsw.SQLITE_OK
    return apsw.SQLITE_DENY


def check_program(connection: apsw.Connection, sql: str) -> None:
    """Refuse a query whose compiled program reads an unlisted table or a sealed column; none of it is run.

    Args:
        connection: a connection to the registry, without an authorizer yet.
        sql: the query.

    Raises:
        InvalidInput: it reads something that is not allowed.
        Unusable: this SQLite compiles queries to a form that jobdb does not know.
        apsw.Error: it is not a valid query.
    """
    tables = {1: "sqlite_master"}
    for root, table in connection.execute("SELECT rootpage, tbl_name FROM sqlite_schema WHERE rootpage > 0"):
        tables[root] = table
    sealed = {
        (table, column)
        for of, name in SEALED_COLUMNS
        for table, column in _tables_and_columns(connection, f"SELECT {name} FROM {of}", tables)
        if column is not None
    }
    # Self-test: a plain query for each sealed column must be recognized.
    if sorted(table for table, _column in sealed) != sorted(table for table, _name in SEALED_COLUMNS):
        raise Unusable(
            "this SQLite compiles queries to a form that jobdb does not know, so jobdb cannot tell what a query reads"
        )
    connection.authorizer = authorize
    for table, column in _tables_and_columns(connection, sql, tables):
        if table not in READABLE_TABLES:
            raise InvalidInput(f"{table} is not a view of the registry; use one SELECT on {', '.join(sorted(VIEWS))}")
        if (table, column) in sealed:
            raise InvalidInput(
                f"table {table} holds sealed secrets, which are not shown; use one SELECT on {', '.join(sorted(VIEWS))}"
            )


def _tables_and_columns(
    connection: apsw.Connection, sql: str, tables: dict[int, str]
) -> Iterator[tuple[str, int | None]]:
    """Yield each stored table that a query opens, with None, and with the number of each column that it reads."""
    opened: dict[int, set[str]] = {}
    columns: list[tuple[int, int]] = []
    for _address, opcode, first, second, third, *_rest in connection.cursor().execute(sql, explain=1):
        # in the registry: temporary tables are SQLite's own
        if opcode in ("OpenRead", "ReopenIdx", "OpenWrite") and not third:
            opened.setdefault(first, set()).add(tables.get(second, f"page {second}"))
        elif opcode == "Column":
            columns.append((first, second))
    yield from ((table, None) for found in opened.values() for table in found)
    yield from ((table, column) for cursor, column in columns for table in opened.get(cursor, ()))
