"""Ad-hoc questions: one read-only SELECT, meant for the documented views, in a transaction of its own.

PostgreSQL is asked for the plan first: what would read a sealed secret shows there and is refused. What the role may
do beyond reading tables (functions of the server's) is the administrator's to grant or not.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as server

from ...errors import InvalidInput, TimedOut
from .failures import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..sql.transaction import Row
    from .connections import Connection

VIEWS = ("v_jobs", "v_events", "v_subscriptions", "v_refusals", "v_verdicts")
_SEALED = re.compile(r"\b(sealed|broker_password)\b")


def run_query(connection: Connection, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
    """Runs one SELECT.

    Args:
        connection: in autocommit, outside of a transaction.
        sql: the statement.
        limit: the most rows to return.
        timeout_sec: how long it may take, in seconds.

    Returns:
        The columns' names and the rows.

    Raises:
        InvalidInput: it is no single SELECT, or it reads a sealed secret.
        TimedOut: it took too long.
    """
    try:
        with connection.transaction():
            connection.execute(b"SET TRANSACTION READ ONLY")
            connection.execute(f"SET LOCAL statement_timeout = {max(1, round(timeout_sec * 1000))}".encode())
            # Prepared with parameters in mind, the server takes one statement only; EXPLAIN takes no COPY nor SET.
            plan = connection.execute(
                f"EXPLAIN (VERBOSE, FORMAT JSON) {sql}".replace("%", "%%").encode(), [], binary=True
            )
            row = plan.fetchone()
            _refuse_secrets(row[0] if row else [])
            with connection.cursor(name="jobdb_query") as cursor:
                cursor.execute(sql.replace("%", "%%").encode(), [])
                columns = [column.name for column in cursor.description or ()]
                return columns, cursor.fetchmany(limit)
    except server.QueryCanceled:
        raise TimedOut(f"the query took longer than {timeout_sec:g} s and was ended; narrow it") from None
    except psycopg.errors.OperationalError:
        raise
    except psycopg.Error as error:
        raise InvalidInput(
            f"cannot run this query: {message(error)}. Use one SELECT on {', '.join(VIEWS)}; "
            "'jobdb query \"SELECT * FROM v_jobs LIMIT 1\"' shows the columns"
        ) from None


def _refuse_secrets(plan: Any) -> None:
    for node in _nodes(plan):
        relation = node.get("Relation Name")
        written = json.dumps({key: value for key, value in node.items() if key not in ("Plans", "Plan")})
        whole_row = relation in ("tokens", "specs") and f"{node.get('Alias')}.*" in written
        if relation == "tokens" or whole_row or _SEALED.search(written):
            raise InvalidInput(
                f"this query reads sealed secrets, and they are not shown. Use one SELECT on {', '.join(VIEWS)}"
            )


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    """Every node of a plan in EXPLAIN's JSON."""
    if isinstance(plan, list):
        for part in plan:
            yield from _nodes(part)
    elif isinstance(plan, dict):
        yield plan
        for part in plan.values():
            if isinstance(part, (list, dict)):
                yield from _nodes(part)
