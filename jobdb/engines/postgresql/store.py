"""The PostgreSQL store: transactions, waiting for changes, and ad-hoc queries.

Called by the verbs; created by ``open.py``. Calls the other modules of this package, never the verbs.

The verbs above it know only ``Store``. Its connections are in ``pool``, the execution of statements in ``transaction``,
and the outcome of a commit in ``commit``.
"""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg

from ...errors import JobdbError
from ..liveness import require_alive
from ..stable_events import StableEvents
from ..traits import Traits
from .commit import commit
from .connections import roll_back
from .dialect import DIALECT, FORMS
from .error_translation import translate
from .listener import Listener, Poller, listen
from .pool import Pool
from .query import run_query
from .sessions import disable_prepare_if_lost
from .transaction import CLEANUP, QUERY, READ, WRITE, PostgresTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...system.interrupt_safe_flag import Flag
    from ..store import Row
    from .connections import Address, TransactionMode

MAX_WAIT_SEC = 5.0
UNSTABLE_WAIT_SEC = 0.05
"""The interval to check for an event that another writer holds back: its rollback is not announced."""


class PostgresStore:
    """An open PostgreSQL database.

    Args:
        address: the server.
        durability: "full", or "normal" (a crash of the server may lose the last commits, but never part of one).
        busy_sec: how long a verb waits for a lock, a connection or the server to come back, in seconds.
    """

    traits = Traits(presigns=False, stores_nul=False)
    file = None

    def __init__(self, address: Address, *, durability: str, busy_sec: float) -> None:
        self.address = address
        self.durability = durability
        self.busy_sec = busy_sec
        self.clock: Callable[[], int] = self._server_ms
        self._pid = os.getpid()
        self._pool = Pool(address, durability=durability, busy_sec=busy_sec)
        self._listener: Listener | Poller | None = None
        self._listener_lock = threading.Lock()
        self._closed = False

    def check(self) -> None:
        """Refuse work in a forked child or after close, before any call into libpq.

        Raises:
            ForkedRegistry: this is not the process that opened it.
            InvalidInput: it is closed.
        """
        require_alive(
            self.address.display_url,
            opener_pid=self._pid,
            closed=self._closed,
            advice="call Registry.open in the child",
        )

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the connections; ``checkpoint`` has no effect here."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        with self._listener_lock:
            if self._listener is not None:
                self._listener.close()
        with suppress(JobdbError, psycopg.Error), self._pool.connection(CLEANUP) as connection:
            connection.execute(b"SET LOCAL synchronous_commit TO off")  # nobody waits for this to be durable
            connection.execute(FORMS[DIALECT.delete_writers].text, {"clients": list(self._pool.clients)})
            connection.execute(b"COMMIT")
        self._pool.close()

    # -- transactions

    @contextmanager
    def write(self) -> Iterator[PostgresTransaction]:
        """Run one transaction, which is durable once the block is exited.

        Raises:
            RolledBack: the server undid it, or the connection broke before the commit: it can be run again.
            Busy: another writer held a lock for longer than ``busy_sec``.
            Unavailable: the connection broke at the commit, and its outcome could not be determined.
            SyncFailed: committed, and the server's synchronous standby did not confirm it.
        """
        with self._transaction(WRITE) as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[PostgresTransaction]:
        """Run one read transaction, which sees one snapshot of the database."""
        with self._transaction(READ) as tx:
            yield tx

    @contextmanager
    def _transaction(self, mode: TransactionMode) -> Iterator[PostgresTransaction]:
        self.check()
        started = time.monotonic()
        xid = None
        with self._pool.connection(mode) as connection:
            connection.transaction_count += 1
            tx = PostgresTransaction(connection)
            try:
                yield tx
                if os.getpid() != self._pid:
                    self.check()
                if mode.writes:
                    xid = tx.mark_writer()
            except BaseException as error:
                if os.getpid() != self._pid:
                    raise  # forked in the block: the transaction is the parent's
                disable_prepare_if_lost(connection, error)
                roll_back(connection)
                if isinstance(error, psycopg.Error):
                    raise translate(error, self.address.display_url, time.monotonic() - started) from error
                raise
            commit(connection, xid, self.address, started=started, busy_sec=self.busy_sec)
            if tx.notifies:
                with suppress(psycopg.Error):
                    connection.execute(FORMS[DIALECT.notify_commit].text)

    def sync(self) -> None:
        """Do nothing: a commit is visible to others only once it is durable.

        Commits by writers with durability "normal" are visible earlier; those writers chose to risk their own commits.
        """

    def query(self, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
        """Run an ad-hoc read-only SELECT; return the column names and at most ``limit`` rows."""
        self.check()
        started = time.monotonic()
        with self._pool.connection(QUERY) as connection:
            try:
                return run_query(connection, sql, limit=limit, timeout_sec=timeout_sec)
            except psycopg.Error as error:
                raise translate(error, self.address.display_url, time.monotonic() - started) from error

    def describe(self) -> str:
        """Return a description for people: engine, version and place, without a password."""
        self.check()
        with self._pool.connection() as connection:
            version = connection.info.server_version
        return f"PostgreSQL {version // 10_000}.{version % 10_000}, {self.address.display_url}"

    def _server_ms(self) -> int:
        with self.read() as tx:
            return tx.now_ms

    # -- changes

    def data_version(self) -> int:
        """Return a number that changes when a writer has committed."""
        self.check()
        return self._get_listener().version

    def wait_for_change(self, seen: int, timeout_sec: float, *, wake: Flag | None = None) -> int:
        """Wait until ``data_version()`` differs from ``seen``, or for ``timeout_sec``; return the current version.

        It returns early because notifications may be missing: behind a pooler, or from a writer that died just after
        its commit.
        """
        self.check()
        return self._get_listener().wait(seen, min(timeout_sec, MAX_WAIT_SEC), wake)

    def _get_listener(self) -> Listener | Poller:
        with self._listener_lock:
            if self._listener is None:
                with self.read() as tx:
                    row = tx.one(DIALECT.channel)
                assert row is not None
                try:
                    self._listener = listen(self.address, row[0])
                except psycopg.Error as error:
                    raise translate(error, self.address.display_url, 0.0) from error
            return self._listener

    def stable_events(self) -> StableEvents:
        """Return the position up to which the order of the events is final: a writer may hold back a lower id."""
        with self.read() as tx:
            row = tx.one(DIALECT.stable_event_id)
        assert row is not None
        event_id, newest = row
        return StableEvents(int(event_id), UNSTABLE_WAIT_SEC if event_id < newest else math.inf)
