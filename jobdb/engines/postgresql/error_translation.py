"""Translation of psycopg's exceptions into jobdb's errors, in one place, so that no verb leaks a driver's exception.

Called by the modules of this package that connect or run statements. Reads the exception only; never asks the server.

The text of an error is the server's primary message, because its details can contain the values of a row.
"""

from __future__ import annotations

import re

import psycopg
from psycopg import errors as server

from ...errors import (
    Busy,
    DatabaseMissing,
    InvalidInput,
    JobdbError,
    SchemaMismatch,
    StorageFailed,
    Unavailable,
)

_RACE_CONSTRAINTS = frozenset({"jobs_by_idempotency_key", "events_job_seq_key", "subscriptions_job_subscriber_key"})
"""Violated if two writers insert a row that neither could lock, since it did not exist yet: the second one retries."""


class RolledBack(Unavailable):
    """The verb was rolled back for a temporary reason: it can be run again."""


_RETRYABLE = (
    server.SerializationFailure,
    server.DeadlockDetected,
    server.AdminShutdown,
    server.CrashShutdown,
    server.CannotConnectNow,
    server.IdleInTransactionSessionTimeout,
    server.TooManyConnections,
    server.InvalidSqlStatementName,  # a prepared statement that is gone: it is not used again (disable_prepare_if_lost)
    server.DuplicatePreparedStatement,
)


def message(error: psycopg.Error) -> str:
    """Return the text of an error, on one line, without the values of rows."""
    text = error.diag.message_primary or str(error).partition("\nDETAIL")[0]
    return " ".join(text.split())


def connection_error_text(error: psycopg.Error) -> str:
    """Return the text of a connection error, on one line, without a final period and libpq's question."""
    return re.sub(r" Is the server running [^?]*\?", "", message(error)).rstrip(" .")


def connection_lost(error: psycopg.Error) -> bool:
    """Return whether the connection is lost, as opposed to one statement refused."""
    sqlstate = error.sqlstate
    if sqlstate is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return sqlstate.startswith(("08", "57P")) or isinstance(error, server.IdleInTransactionSessionTimeout)


def _in_recovery(error: psycopg.Error) -> bool:
    """Return whether a standby refused to begin a transaction that writes, in any language of its messages."""
    where = error.diag.source_function or ""  # the check of transaction_read_only, whose name depends on the release
    return isinstance(error, server.FeatureNotSupported) and ("check_hook" in where or "read_only" in where)


def translate(error: psycopg.Error, database: str, waited_sec: float) -> JobdbError:
    """Return the jobdb error for a driver's error after which nothing of the transaction was committed.

    Args:
        error: the driver's error.
        database: the database, as messages name it.
        waited_sec: how long the verb has taken so far, in seconds.
    """
    what = message(error)
    if isinstance(error, server.LockNotAvailable):
        return Busy(
            f"{database}: a job or the schema was locked by another writer for {waited_sec:.1f} s. Nothing was "
            "written: try again, or allow a longer wait",
            waited_sec=waited_sec,
        )
    raced = isinstance(error, server.UniqueViolation) and error.diag.constraint_name in _RACE_CONSTRAINTS
    if raced or isinstance(error, _RETRYABLE) or connection_lost(error):
        return RolledBack(f"{database}: {what}; nothing was written. Try again when the server is available")
    if isinstance(error, server.ReadOnlySqlTransaction) or _in_recovery(error):
        return StorageFailed(f"{database} is read-only ({what}); name the primary server in the URL")
    if isinstance(error, server.InsufficientPrivilege):
        return StorageFailed(
            f"{database}: the role may not do this ({what}); grant it SELECT, INSERT, UPDATE and DELETE on the tables "
            "and USAGE on the sequences"
        )
    if isinstance(error, server.InvalidCatalogName):
        return DatabaseMissing(f"{database}: {what}; create it with 'createdb', then run 'jobdb init'")
    if isinstance(error, psycopg.DataError):
        return InvalidInput(f"PostgreSQL cannot hold a value: {what}; nothing was written")
    if error.sqlstate is not None and error.sqlstate.startswith("42"):
        return SchemaMismatch(f"{database} does not have the schema of this jobdb ({what}); run 'jobdb doctor'")
    if isinstance(error, psycopg.OperationalError):
        return StorageFailed(f"{database}: {what}; nothing was written. Check the server's disk, memory and log")
    return StorageFailed(f"{database}: PostgreSQL refused to work: {what}; nothing was written")
