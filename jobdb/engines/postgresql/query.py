"""Ad-hoc questions: one read-only SELECT, meant for the documented views, in a transaction that is rolled back.

To learn which tables a question reads, it is first made into a temporary view: PostgreSQL notes what a view depends on.
What the role may do through functions of the server's is its administrator's to grant or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import psycopg
from psycopg import errors as server

from ...errors import InvalidInput, TimedOut
from ..sql.transaction import Row
from .connections import Connection
from .failures import message

VIEWS = ("v_jobs", "v_events", "v_subscriptions", "v_refusals", "v_verdicts")
SEALED = frozenset({"tokens", "specs"})
LONGEST_SEC = 7 * 86_400


def run_query(
    connection: Connection, statements: Mapping[str, str], sql: str, *, limit: int, timeout_sec: float
) -> tuple[list[str], list[Row]]:
    """Runs one SELECT.

    Args:
        connection: in autocommit, outside of a transaction.
        statements: the named statements.
        sql: the question.
        limit: the most rows to return.
        timeout_sec: how long it may take, in seconds.

    Returns:
        The columns' names and the rows.

    Raises:
        InvalidInput: it is no single SELECT, or it reads a table that holds sealed secrets.
        TimedOut: it took too long.
    """
    question = sql.strip().rstrip(";")
    timeout_sec = min(max(0.001, timeout_sec), LONGEST_SEC) if timeout_sec == timeout_sec else 0.001
    try:
        connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE")
        connection.execute(statements["limit_question"].encode(), {"timeout": f"{round(timeout_sec * 1000)}ms"})
        # With parameters, be they none, the server takes one statement only.
        look = f"CREATE TEMPORARY VIEW jobdb_question AS SELECT EXISTS (\n{question}\n) AS answer"
        connection.execute(look.replace("%", "%%").encode(), [])
        for (table,) in connection.execute(statements["tables_of_question"].encode()):
            if table in SEALED:
                raise InvalidInput(
                    f"table {table} holds sealed secrets, and they are not shown; use one SELECT on {', '.join(VIEWS)}"
                )
        connection.execute(b"SET TRANSACTION READ ONLY")
        with connection.cursor(name="jobdb_question") as cursor:
            cursor.execute(question.replace("%", "%%").encode(), [])
            columns = [column.name for column in cursor.description or ()]
            return columns, cursor.fetchmany(limit)
    except server.QueryCanceled:
        raise TimedOut(f"the query took longer than {timeout_sec:g} s and was ended; narrow it") from None
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, psycopg.InternalError) as error:
        raise InvalidInput(
            f"cannot run this query: {message(error)}. Use one SELECT on {', '.join(VIEWS)}; "
            "'jobdb query \"SELECT * FROM v_jobs LIMIT 1\"' shows the columns"
        ) from None
    finally:
        with suppress(psycopg.Error):
            connection.execute(b"ROLLBACK")
