"""The commit of a transaction, and the search for its outcome if the server's answer is lost.

A commit whose answer was lost is recognized by the mark that each transaction leaves (``mark_writer``): the server is
asked on another connection whether it was kept. Called by the store at the end of a transaction.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg

from ...errors import JobdbError, SyncFailed, Unavailable
from .backoff import Backoff
from .connections import roll_back
from .dialect import DIALECT, FORMS
from .error_translation import RolledBack, connection_lost, translate
from .sessions import sync_standby_warning

if TYPE_CHECKING:
    from ..statements import Statement
    from ..store import Row
    from .connections import Address, Connection

_FIRST_PAUSE_SEC = 0.02
_LONGEST_PAUSE_SEC = 0.5


def commit(connection: Connection, xid: str | None, address: Address, *, started: float, busy_sec: float) -> None:
    """Commit a connection's transaction.

    Args:
        connection: in the transaction.
        xid: the transaction's id; None if it has written nothing.
        address: the server, to connect again if the connection breaks.
        started: when the transaction was requested, by ``time.monotonic()``.
        busy_sec: how long to wait for a server that does not answer, in seconds.

    Raises:
        RolledBack: nothing was kept; the verb can be run again.
        Unavailable: the connection broke, and the outcome could not be determined.
        SyncFailed: committed, and the server's synchronous standby did not confirm it.
    """
    connection.warnings.clear()
    try:
        connection.execute(b"COMMIT", prepare=False)
    except psycopg.Error as error:
        if xid is None:
            return  # nothing was written, and the rows have been read already
        if not connection_lost(error):
            roll_back(connection)
            raise translate(error, address.display_url, time.monotonic() - started) from error
        if not was_committed(address, connection, xid, busy_sec=busy_sec):
            raise RolledBack(
                f"{address.display_url}: the connection broke at the commit; nothing was written. Try again"
            ) from error
    if xid is not None and (why := sync_standby_warning(connection)):
        raise SyncFailed(
            f"{address.display_url} has committed this, but no synchronous standby has confirmed it ({why}): a "
            "failover may lose it. Restore the standby, and read the state before you continue"
        )


def was_committed(address: Address, lost: Connection, xid: str, *, busy_sec: float) -> bool:
    """Ask the server whether a transaction whose commit was not answered was committed.

    Args:
        address: the server.
        lost: the connection that broke.
        xid: the transaction's id.
        busy_sec: how long to wait for the server to come back, in seconds.

    Raises:
        Unavailable: it does not come back in time.
    """
    deadline, backoff = time.monotonic() + busy_sec, Backoff(_FIRST_PAUSE_SEC, longest_sec=_LONGEST_PAUSE_SEC)
    while True:
        try:
            with address.connect() as connection:
                # Two statements: the second must read a snapshot taken after the first found the transaction ended.
                if _fetch_one(connection, DIALECT.writer_is_active, transaction=xid) == (False,):
                    known = _fetch_one(connection, DIALECT.last_commit, client=lost.client)
                    return known == (lost.transaction_count,)
        except (psycopg.Error, JobdbError):
            pass  # it is not back yet
        if time.monotonic() > deadline:
            break
        time.sleep(backoff.next())
    raise Unavailable(
        f"the connection to {address.display_url} broke at the commit, and the server does not report its outcome: "
        "the verb may or may not have been done. Read the state before you continue"
    )


def _fetch_one(connection: Connection, statement: Statement, **parameters: Any) -> Row | None:
    return connection.execute(FORMS[statement].text, parameters).fetchone()
