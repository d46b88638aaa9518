"""Turns what psycopg raises into jobdb's errors. One place, so that no verb leaks a driver's exception.

The text of an error is the server's primary message: its details can hold the values of a row.
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
"""Two writers of what neither could lock, because it was not there yet: the second one looks again."""


class RolledBack(Unavailable):
    """Nothing of the verb was kept, for a reason that passes: it can be run again as if it had never been."""


_RETRYABLE = (
    server.SerializationFailure,
    server.DeadlockDetected,
    server.AdminShutdown,
    server.CrashShutdown,
    server.CannotConnectNow,
    server.IdleInTransactionSessionTimeout,
    server.TooManyConnections,
    server.InvalidSqlStatementName,  # a prepared statement that is gone: it is not used again (sessions.doubt)
    server.DuplicatePreparedStatement,
)


def message(error: psycopg.Error) -> str:
    """What happened, on one line, without the values of rows."""
    text = error.diag.message_primary or str(error).partition("\nDETAIL")[0]
    return " ".join(text.split())


def connection_error_text(error: psycopg.Error) -> str:
    """Why there was no connection, on one line without a full stop, and without libpq's question after it."""
    return re.sub(r" Is the server running [^?]*\?", "", message(error)).rstrip(" .")


def connection_lost(error: psycopg.Error) -> bool:
    """Whether the connection is gone, rather than one statement refused."""
    sqlstate = error.sqlstate
    if sqlstate is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return sqlstate.startswith(("08", "57P")) or isinstance(error, server.IdleInTransactionSessionTimeout)


def _in_recovery(error: psycopg.Error) -> bool:
    """Whether a standby refused to begin a transaction that writes; asked of the server's code, not of its language."""
    where = error.diag.source_function or ""  # what checks the value of transaction_read_only, called so or so
    return isinstance(error, server.FeatureNotSupported) and ("check_hook" in where or "read_only" in where)


def translate(error: psycopg.Error, database: str, waited_sec: float) -> JobdbError:
    """The jobdb error that says what ``error`` means for the database at ``database``. Nothing of it was committed."""
    what = message(error)
    if isinstance(error, server.LockNotAvailable):
        return Busy(
            f"{database}: a job or the schema was locked by another writer for {waited_sec:.1f} s. Nothing was "
            f"written: "
            "try again, or allow a longer wait",
            waited_sec=waited_sec,
        )
    raced = isinstance(error, server.UniqueViolation) and error.diag.constraint_name in _RACE_CONSTRAINTS
    if raced or isinstance(error, _RETRYABLE) or connection_lost(error):
        return RolledBack(f"{database}: {what}; nothing was written. Try again when the server is well")
    if isinstance(error, server.ReadOnlySqlTransaction) or _in_recovery(error):
        return StorageFailed(f"{database} is read-only ({what}); name the primary server in the URL")
    if isinstance(error, server.InsufficientPrivilege):
        return StorageFailed(
            f"{database}: the role may not do this ({what}); grant it SELECT, INSERT, UPDATE and DELETE on the tables "
            "and USAGE on the sequences"
        )
    if isinstance(error, server.InvalidCatalogName):
        return DatabaseMissing(f"{database}: {what}; make it with 'createdb', then run 'jobdb init'")
    if isinstance(error, psycopg.DataError):
        return InvalidInput(f"PostgreSQL cannot hold a value: {what}; nothing was written")
    if error.sqlstate is not None and error.sqlstate.startswith("42"):
        return SchemaMismatch(f"{database} has not the schema of this jobdb ({what}); run 'jobdb doctor'")
    if isinstance(error, psycopg.OperationalError):
        return StorageFailed(f"{database}: {what}; nothing was written. Check the server's disk, memory and log")
    return StorageFailed(f"{database}: PostgreSQL refused to work: {what}; nothing was written")
