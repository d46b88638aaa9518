"""The server's session behind a connection: nothing outlives a transaction in it, unless the session is ours alone.

A pooler in transaction mode (PgBouncer, for example) lends one session of the server to many clients in turn. What one
of them leaves behind, another finds:

- a setting by SET: so each transaction states its own by SET LOCAL, `synchronous_commit` first of all, and on a session
  that may be lent it also takes back what others may have set;
- a prepared statement: so they are used on direct connections only, and under names that no other client can have. A
  statement of somebody else is never run by mistake; one that is not there is an error, and the verb is run again
  without;
- LISTEN: so it is used on direct connections only (listener.py polls otherwise);
- locks, temporary views, cursors: all of them end with their transaction.

Sources: https://www.pgbouncer.org/features.html, https://www.postgresql.org/docs/current/sql-set.html,
https://www.postgresql.org/docs/current/sql-prepare.html
"""

from __future__ import annotations

import os
import socket
import uuid
from collections import deque
from typing import TYPE_CHECKING

from psycopg import errors as server

from .connections import SessionInfo

if TYPE_CHECKING:
    from psycopg.errors import Diagnostic

    from .connections import Connection

IDLE_IN_TRANSACTION_SEC = 120
_PREPARE_AFTER = 5
_WARNINGS_KEPT = 4
_SYNC_WAIT_CANCELLED = ("01000", "57P01")
_RESET_SETTINGS = {"role": "DEFAULT", "statement_timeout": "DEFAULT"}
_DURABLE_COMMIT_MODES = ("on", "local", "remote_write", "remote_apply")

# What the server was configured with, and not what somebody has set in this session since: reset_val.
_SESSION_QUERY = b"""
SELECT pg_backend_pid(), host(inet_client_addr()), inet_client_port(),
       (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'),
       (SELECT reset_val FROM pg_settings WHERE name = 'search_path')
"""


def configure_connection(connection: Connection) -> SessionInfo:
    """Learn whether a new connection has a session of its own, and how durable the server's commits are.

    Args:
        connection: in autocommit, fresh. Its warnings are kept from now on, and its statements prepared where its
            session is its own.
    """
    _keep_warnings(connection)
    row = connection.execute(_SESSION_QUERY, prepare=False).fetchone()
    assert row is not None
    backend, address, port, commit, path = row
    direct = backend == connection.info.backend_pid and _is_direct(connection, address, port)
    if direct and _randomize_statement_names(connection):
        connection.prepare_threshold = _PREPARE_AFTER
    return SessionInfo(direct, commit, path)


def _keep_warnings(connection: Connection) -> None:
    kept = connection.warnings = deque(maxlen=_WARNINGS_KEPT)

    def keep(notice: Diagnostic) -> None:  # it is valid in here only, and must not refer to the connection
        if notice.severity_nonlocalized == "WARNING":
            kept.append((notice.sqlstate, notice.message_primary))

    connection.add_notice_handler(keep)


def sync_standby_warning(connection: Connection) -> str | None:
    """Return what the server said if it stopped waiting for its synchronous standby: the COMMIT succeeds all the same.

    The caller empties ``connection.warnings`` before the COMMIT. The server warns when somebody cancels the wait
    (``pg_cancel_backend``), and when it is shut down.
    Source: https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION-HA
    """
    for sqlstate, message in connection.warnings:
        if sqlstate in _SYNC_WAIT_CANCELLED:
            return message or "it warned at the commit"
    return None


def _randomize_statement_names(connection: Connection) -> bool:
    """Number the statements that will be prepared from a number that no other client begins with.

    psycopg counts from 0 in each connection, so two clients of one session would mean different statements by the same
    name. False when this psycopg counts in another way: nothing is prepared then.
    """
    names = getattr(connection, "_prepared", None)
    if not isinstance(getattr(names, "_prepared_idx", None), int):
        return False
    names._prepared_idx = uuid.uuid4().int  # type: ignore[union-attr]
    return True


def disable_prepare_if_lost(connection: Connection, error: BaseException) -> None:
    """Prepare nothing any more on a connection whose prepared statements were gone: others use its session."""
    if isinstance(error, (server.InvalidSqlStatementName, server.DuplicatePreparedStatement)):
        connection.session, connection.prepare_threshold = connection.session._replace(direct=False), None
        connection.begin_statements.clear()


def _is_direct(connection: Connection, address: str | None, port: int | None) -> bool:
    """Return whether the server's other end is our own socket.

    A translated address looks like a pooler: slower, and safe.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        if ours.family == socket.AF_UNIX:
            return address is None
        mine = ours.getsockname()
    return (address, port) == (mine[0].partition("%")[0].removeprefix("::ffff:"), mine[1])


def transaction_settings(connection: Connection, *, durability: str | None, busy_sec: float) -> str:
    """Return the statements that follow BEGIN: what they set ends with the transaction.

    Args:
        connection: configured.
        durability: "full" or "normal"; None for a transaction that only reads.
        busy_sec: the longest wait for a lock, in seconds.
    """
    local = {
        "lock_timeout": f"'{max(1, round(busy_sec * 1000))}ms'",
        "idle_in_transaction_session_timeout": f"'{IDLE_IN_TRANSACTION_SEC}s'",
        "jit": "off",
    }
    if durability is not None:
        local["synchronous_commit"] = _synchronous_commit(connection, durability)
    if connection.session.direct:
        return _set_local(local)
    # A temporary table that somebody left would be found before ours of that name, unless its schema comes last.
    path = ", ".join(part for part in (connection.session.configured_path, "pg_temp") if part).replace("'", "''")
    return f"{_set_local({**local, **_RESET_SETTINGS})}; SELECT set_config('search_path', '{path}', true)"


def _set_local(values: dict[str, str]) -> str:
    return "; ".join(f"SET LOCAL {name} TO {value}" for name, value in values.items())


def _synchronous_commit(connection: Connection, durability: str) -> str:
    """Return what synchronous_commit must be, whatever the session was left with: "off" alone loses commits."""
    if durability == "normal":
        return "off"
    configured = connection.session.configured_commit
    return configured if configured in _DURABLE_COMMIT_MODES else "on"
