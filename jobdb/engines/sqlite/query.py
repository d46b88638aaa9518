"""Ad-hoc questions: one read-only SELECT, meant for the documented views, on a connection of its own.

The connection is read-only, and an authorizer lets a statement read and nothing else: no sealed secret, no pragma, no
attached file, no write. Source: https://sqlite.org/c3ref/set_authorizer.html
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import apsw

from ...errors import InvalidInput, TimedOut
from . import opened
from .failures import translate
from .question import VIEWS, authorize

if TYPE_CHECKING:
    from pathlib import Path

    from ..sql.transaction import Row

_INSTRUCTIONS_A_LOOK = 10_000


def run_query(path: Path, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
    """Runs one SELECT.

    Args:
        path: the database.
        sql: the statement.
        limit: the most rows to return.
        timeout_sec: how long it may take, in seconds.

    Returns:
        The columns' names and the rows.

    Raises:
        InvalidInput: it is no single SELECT on the views.
        TimedOut: it took too long.
    """
    identity = opened.add(path)
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(5000)
            connection.pragma("trusted_schema", 0)
            deadline = time.monotonic() + timeout_sec
            connection.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS_A_LOOK)
            connection.authorizer = authorize
            return _rows(connection, sql, limit)
        finally:
            connection.close()
    except apsw.InterruptError:
        raise TimedOut(f"the query took longer than {timeout_sec:g} s and was ended; narrow it") from None
    except (apsw.SQLError, apsw.AuthError, apsw.BindingsError) as error:
        raise InvalidInput(
            f"cannot run this query: {error}. Use one SELECT on {', '.join(sorted(VIEWS))}; "
            "'jobdb query \"SELECT * FROM v_jobs LIMIT 1\"' shows the columns"
        ) from None
    except apsw.Error as error:
        raise translate(error, path, 5.0) from error
    finally:
        opened.remove(identity)


def _rows(connection: apsw.Connection, sql: str, limit: int) -> tuple[list[str], list[Row]]:
    columns: list[str] = []
    statements = 0

    def look(cursor: apsw.Cursor, _statement: str, _bindings: object) -> bool:
        """Before each statement: its columns are known here even if no row comes."""
        nonlocal columns, statements
        statements += 1
        columns = columns or [column[0] for column in cursor.get_description()]
        return statements == 1

    cursor = connection.cursor()
    cursor.exec_trace = look
    rows: list[Row] = []
    try:
        for row in cursor.execute(sql):
            rows.append(row)
            if len(rows) > limit:
                rows.pop()
                break
    except apsw.ExecTraceAbort:
        raise InvalidInput("one statement at a time; use one SELECT") from None
    return columns, rows
