"""The server's session behind a connection: nothing in it outlives a transaction, unless the session is direct.

A pooler in transaction mode (PgBouncer, for example) lends one session of the server to many clients in turn. The state
that one client leaves behind affects the next:

- settings by SET: so each transaction makes its own by SET LOCAL, above all `synchronous_commit`, and on a session that
  may be lent it also resets those that others may have made;
- prepared statements: so they are used on direct connections only, and under names that no other client can have. A
  statement of another client is never run by mistake; one that is missing is an error, and the verb is run again
  without prepared statements;
- LISTEN: so it is used on direct connections only (listener.py polls otherwise);
- locks, temporary views, cursors: all of these end with their transaction.

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

# The configured values (reset_val), not those that another client has set in this session since.
_SESSION_QUERY = b"""
SELECT pg_backend_pid(), host(inet_client_addr()), inet_client_port(),
       (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'),
       (SELECT reset_val FROM pg_settings WHERE name = 'search_path')
"""


def configure_connection(connection: Connection) -> SessionInfo:
    """Determine the session behind a new connection, keep its warnings, and enable prepared statements if it is direct.

    Args:
        connection: a new connection in autocommit mode.
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

    def keep(notice: Diagnostic) -> None:  # valid only during this call; it must not refer to the connection
        if notice.severity_nonlocalized == "WARNING":
            kept.append((notice.sqlstate, notice.message_primary))

    connection.add_notice_handler(keep)


def sync_standby_warning(connection: Connection) -> str | None:
    """Return the server's warning if it stopped waiting for its synchronous standby, although the COMMIT succeeded.

    The caller clears ``connection.warnings`` before the COMMIT. The server warns if somebody cancels the wait
    (``pg_cancel_backend``), and if it is shut down.
    Source: https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION-HA
    """
    for sqlstate, message in connection.warnings:
        if sqlstate in _SYNC_WAIT_CANCELLED:
            return message or "it warned at the commit"
    return None


def _randomize_statement_names(connection: Connection) -> bool:
    """Number prepared statements from a random start, so that no other client uses the same names.

    psycopg counts from 0 in each connection, so two clients of one session would use the same name for different
    statements. Returns False if this version of psycopg counts in another way: then nothing is prepared.
    """
    names = getattr(connection, "_prepared", None)
    if not isinstance(getattr(names, "_prepared_idx", None), int):
        return False
    names._prepared_idx = uuid.uuid4().int  # type: ignore[union-attr]
    return True


def disable_prepare_if_lost(connection: Connection, error: BaseException) -> None:
    """Stop preparing statements on a connection whose prepared statements were lost: others use its session."""
    if isinstance(error, (server.InvalidSqlStatementName, server.DuplicatePreparedStatement)):
        connection.session, connection.prepare_threshold = connection.session._replace(direct=False), None
        connection.begin_statements.clear()


def _is_direct(connection: Connection, address: str | None, port: int | None) -> bool:
    """Return whether the server's peer is this connection's own socket.

    A translated address looks like a pooler, which is slower but safe.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        if ours.family == socket.AF_UNIX:
            return address is None
        mine = ours.getsockname()
    return (address, port) == (mine[0].partition("%")[0].removeprefix("::ffff:"), mine[1])


def transaction_settings(connection: Connection, *, durability: str | None, busy_sec: float) -> str:
    """Return the statements that follow BEGIN; their settings end with the transaction.

    Args:
        connection: a connection that was configured.
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
    # A temporary table that another client left would hide ours of the same name, unless its schema comes last.
    path = ", ".join(part for part in (connection.session.configured_path, "pg_temp") if part).replace("'", "''")
    return f"{_set_local({**local, **_RESET_SETTINGS})}; SELECT set_config('search_path', '{path}', true)"


def _set_local(values: dict[str, str]) -> str:
    return "; ".join(f"SET LOCAL {name} TO {value}" for name, value in values.items())


def _synchronous_commit(connection: Connection, durability: str) -> str:
    """Return the value for synchronous_commit, whatever the session was left with; only "off" can lose commits."""
    if durability == "normal":
        return "off"
    configured = connection.session.configured_commit
    return configured if configured in _DURABLE_COMMIT_MODES else "on"
