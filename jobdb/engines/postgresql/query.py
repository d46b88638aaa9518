"""Ad-hoc queries: one read-only SELECT, meant for the documented views, in a transaction that is rolled back.

Called by the store for the registry's ``query``. Uses a connection that the store lends; never writes.

The relations and functions of a query are checked before it is run: see ``query_check``.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import errors as server

from jobdb.schema import VIEWS

from ...core.arguments import text
from ...errors import InvalidInput, TimedOut
from ..store import Row
from . import loaders
from .connections import Connection, roll_back
from .dialect import DIALECT, FORMS
from .error_translation import message
from .query_check import check_query

MAX_TIMEOUT_SEC = 7 * 86_400
MAX_QUERY_CHARS = 1_048_576
"""In characters."""
MAX_RESULT_BYTES = 256 * 1_048_576

_QUERY_ERRORS = (
    psycopg.ProgrammingError,
    psycopg.DataError,
    psycopg.NotSupportedError,
    psycopg.InternalError,
    # Limits that a query has exceeded, although the driver classifies them as operational errors:
    server.ProgramLimitExceeded,
    server.StatementTooComplex,
    server.TooManyArguments,
    server.TooManyColumns,
    server.OutOfMemory,
)


def run_query(connection: Connection, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
    """Run one SELECT.

    Args:
        connection: in a transaction that may write; it is rolled back.
        sql: the query.
        limit: the maximum number of rows.
        timeout_sec: how long it may take, in seconds.

    Returns:
        The column names and the rows.

    Raises:
        InvalidInput: it is not a single SELECT, reads or calls something that is not allowed, or its result is too
            large.
        TimedOut: it took too long.
    """
    query = text("the query", sql, most=MAX_QUERY_CHARS).strip().rstrip(";")
    timeout_sec = min(max(0.001, timeout_sec), MAX_TIMEOUT_SEC) if timeout_sec == timeout_sec else 0.001
    try:
        connection.execute(FORMS[DIALECT.set_query_timeout].text, {"timeout": f"{max(1, round(timeout_sec * 1000))}ms"})
        check_query(connection, query)
        connection.execute(b"SET TRANSACTION READ ONLY")
        with connection.cursor(name="jobdb_query") as cursor:
            cursor.execute(query.replace("%", "%%").encode(), [])
            loaders.register_plain_loaders(cursor.adapters)
            return [column.name for column in cursor.description or ()], _rows(cursor, limit)
    except server.QueryCanceled:
        raise TimedOut(f"the query took longer than {timeout_sec:g} s and was ended; narrow it") from None
    except _QUERY_ERRORS as error:
        raise InvalidInput(
            f"cannot run this query: {message(error)}. Use one SELECT on {', '.join(VIEWS)}; "
            "'jobdb query \"SELECT * FROM v_jobs LIMIT 1\"' shows the columns"
        ) from None
    finally:
        roll_back(connection)


def _rows(cursor: psycopg.ServerCursor[tuple[Any, ...]], limit: int) -> list[Row]:
    """Fetch rows in batches sized by the rows' length, so that at most one batch exceeds the size limit."""
    found: list[Row] = []
    size, at_a_time = 0, 1
    while len(found) < limit:
        more = cursor.fetchmany(min(at_a_time, limit - len(found)))
        if not more:
            break
        found += more
        fetched = sum(len(value) if isinstance(value, (str, bytes)) else 8 for row in more for value in row)
        size += fetched
        if size > MAX_RESULT_BYTES:
            raise InvalidInput(f"the result is larger than {MAX_RESULT_BYTES >> 20} MiB; select fewer columns or rows")
        at_a_time = max(1, min(1_000, 4 * at_a_time, 16 * 1_048_576 * len(more) // max(1, fetched)))
    return found
