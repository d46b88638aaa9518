"""The PostgreSQL store: transactions, their outcome, and news. The verbs above it know only ``Transaction``.

Writers run side by side at READ COMMITTED: a verb first locks its jobs (``lock_jobs``) and then looks at them, so that
it sees what the writer before it has committed. A commit whose answer was lost is asked about by the mark that each
transaction leaves.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from ...errors import ForkedRegistry, InvalidInput, JobdbError, SyncFailed, Unavailable
from .connections import Address, Connection
from .dialect import DIALECT, FORMS
from .error_translation import RolledBack, connection_lost, translate
from .listener import Listener, Poller, listen
from .pool import Pool
from .query import run_query
from .sessions import disable_prepare_if_lost, sync_standby_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ..statements import Statement
    from ..store import Row

MAX_WAIT_SEC = 5.0
UNSTABLE_WAIT_SEC = 0.05
_ROWS_AT_A_TIME = 1000


class PostgresTransaction:
    """Runs named statements inside one transaction."""

    __slots__ = ("_connection", "_cursor", "_now", "notifies", "transaction")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._now: int | None = None
        self.transaction: str | None = None
        self.notifies = False

    def _execute(self, statement: Statement, parameters: Mapping[str, Any]) -> psycopg.Cursor[Row]:
        text, makes_news = FORMS[statement]
        self.notifies = self.notifies or makes_news
        return self._cursor.execute(text, parameters)

    @property
    def now_ms(self) -> int:
        """The transaction's one moment by the server's clock: when its jobs were locked, or when first asked."""
        if self._now is None:
            row = self.one(DIALECT.now_ms)
            assert row is not None
            self._now = row[0]
        return self._now

    def lock_jobs(self, job_ids: Iterable[str]) -> None:
        row = self.one(DIALECT.lock_jobs, job_ids=sorted(set(job_ids)), **self._writer_parameters())
        assert row is not None
        moment, self.transaction = row
        self._now = moment if self._now is None else self._now

    def mark_writer(self) -> None:
        """Leaves the mark by which the commit can be recognised, if anything was written."""
        if self.transaction is None and (row := self.one(DIALECT.mark_writer, **self._writer_parameters())):
            self.transaction = row[0]

    def _writer_parameters(self) -> dict[str, Any]:
        return {"client": self._connection.client, "number": self._connection.number}

    def one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        return self._execute(statement, parameters).fetchone()

    def all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        return self._execute(statement, parameters).fetchall()

    def iterate(self, statement: Statement, /, **parameters: Any) -> Iterator[Row]:
        with self._connection.cursor(name=f"jobdb_{statement.name}") as cursor:
            cursor.itersize = _ROWS_AT_A_TIME
            cursor.execute(FORMS[statement].text, parameters)
            yield from cursor

    def run(self, statement: Statement, /, **parameters: Any) -> int:
        return self._execute(statement, parameters).rowcount

    def run_many(self, statement: Statement, /, parameters: Iterable[Mapping[str, Any]]) -> None:
        text, makes_news = FORMS[statement]
        self.notifies = self.notifies or makes_news
        self._cursor.executemany(text, list(parameters))

    def run_rows(self, statement: Statement, /, names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        self.run_many(statement, [dict(zip(names, row, strict=True)) for row in rows])


class PostgresStore:
    """An open PostgreSQL database.

    Args:
        address: the server.
        durability: "full", or "normal" (a crash of the server may lose the last commits, and never tears one).
        busy_sec: how long a verb waits for a lock, a connection or a server that comes back, in seconds.
    """

    supports_presigning = False

    def __init__(self, address: Address, *, durability: str, busy_sec: float) -> None:
        self.address = address
        self.durability = durability
        self.busy_sec = busy_sec
        self.clock: Callable[[], int] = self._server_ms
        self._pid = os.getpid()
        self._pool = Pool(address, durability=durability, busy_sec=busy_sec)
        self._listener: Listener | Poller | None = None
        self._listener_lock = threading.Lock()
        self._has_unstable_events = False
        self._closed = False

    def check(self) -> None:
        """Refuses work in a forked child or after close, before any call into libpq.

        Raises:
            ForkedRegistry: this is not the process that opened it.
            InvalidInput: it is closed.
        """
        if os.getpid() != self._pid:
            raise ForkedRegistry(
                f"this registry on {self.address.display_url} was opened by process {self._pid} and this is its child "
                f"{os.getpid()}; call Registry.open in the child"
            )
        if self._closed:
            raise InvalidInput(f"this registry on {self.address.display_url} is closed; open a new one")

    def close(self, *, checkpoint: bool = True) -> None:
        """Closes the connections. The server needs no checkpoint of ours."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        with self._listener_lock:
            if self._listener is not None:
                self._listener.close()
        with suppress(JobdbError, psycopg.Error), self._pool.connection("BEGIN") as connection:
            connection.execute(b"SET LOCAL synchronous_commit TO off")  # nobody waits for this to be durable
            connection.execute(FORMS[DIALECT.delete_writers].text, {"clients": list(self._pool.clients)})
            connection.execute(b"COMMIT")
        self._pool.close()

    # -- transactions

    @contextmanager
    def write(self) -> Iterator[PostgresTransaction]:
        """One transaction, durable when the block has been left.

        Raises:
            RolledBack: the server undid it, or the connection broke before the commit: it can be run again.
            Busy: another writer held a lock for longer than ``busy_sec``.
            Unavailable: the connection broke at the commit, and its outcome could not be learned.
            SyncFailed: committed, and the server's synchronous standby did not confirm it.
        """
        with self._transaction("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE") as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[PostgresTransaction]:
        """One read transaction: what it sees is one moment's state."""
        with self._transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as tx:
            yield tx

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[PostgresTransaction]:
        self.check()
        started = time.monotonic()
        with self._pool.connection(begin) as connection:
            connection.number += 1
            tx = PostgresTransaction(connection)
            try:
                yield tx
                if os.getpid() != self._pid:
                    self.check()
                if begin.endswith("WRITE"):
                    tx.mark_writer()
            except BaseException as error:
                if os.getpid() != self._pid:
                    raise  # forked in the block: the transaction is the parent's
                disable_prepare_if_lost(connection, error)
                _roll_back(connection)
                if isinstance(error, psycopg.Error):
                    raise translate(error, self.address.display_url, time.monotonic() - started) from error
                raise
            self._commit(connection, tx, started)
            if tx.notifies:
                with suppress(psycopg.Error):
                    connection.execute(FORMS[DIALECT.notify_commit].text)

    def _commit(self, connection: Connection, tx: PostgresTransaction, started: float) -> None:
        connection.warnings.clear()
        try:
            connection.execute(b"COMMIT", prepare=False)
        except psycopg.Error as error:
            if tx.transaction is None:
                return  # nothing was written, and what was read is read
            if not connection_lost(error):
                _roll_back(connection)
                raise translate(error, self.address.display_url, time.monotonic() - started) from error
            if not self._was_committed(connection, tx.transaction):
                raise RolledBack(
                    f"{self.address.display_url}: the connection broke at the commit; nothing was written. Try again"
                ) from error
        if tx.transaction is not None and (why := sync_standby_warning(connection)):
            raise SyncFailed(
                f"{self.address.display_url} has committed this and no synchronous standby has confirmed it ({why}): a "
                "failover may lose it. Bring the standby back, and read the state before going on"
            )

    def _was_committed(self, lost: Connection, transaction: str) -> bool:
        """Asks the server what became of a transaction whose commit was not answered.

        Raises:
            Unavailable: it does not come back in time.
        """
        deadline, pause = time.monotonic() + self.busy_sec, 0.02
        while True:
            try:
                with self.address.connect() as connection:
                    # Two statements: what the second sees must be later than what the first found ended.
                    if self._fetch_one(connection, DIALECT.writer_is_active, transaction=transaction) == (False,):
                        return self._fetch_one(connection, DIALECT.last_commit, client=lost.client) == (lost.number,)
            except (psycopg.Error, JobdbError):
                pass  # it is not back yet
            if time.monotonic() > deadline:
                break
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        raise Unavailable(
            f"the connection to {self.address.display_url} broke at the commit, and the server does not say what "
            f"became of "
            "it: the verb may have been done or not. Read the state before going on"
        )

    def _fetch_one(self, connection: Connection, statement: Statement, **parameters: Any) -> Row | None:
        return connection.execute(FORMS[statement].text, parameters).fetchone()

    def sync(self) -> None:
        """Nothing to do: the server shows a commit to others only when it is durable.

        Commits of those who chose durability "normal" are shown earlier; they gave that up for their own.
        """

    def query(self, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
        """Runs one read-only SELECT of a person's; returns the columns' names and at most ``limit`` rows."""
        self.check()
        started = time.monotonic()
        with self._pool.connection("BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE") as connection:
            try:
                return run_query(connection, sql, limit=limit, timeout_sec=timeout_sec)
            except psycopg.Error as error:
                raise translate(error, self.address.display_url, time.monotonic() - started) from error

    def describe(self) -> str:
        """What this is, for a person."""
        self.check()
        with self._pool.connection() as connection:
            version = connection.info.server_version
        return f"PostgreSQL {version // 10_000}.{version % 10_000}, {self.address.display_url}"

    def _server_ms(self) -> int:
        with self.read() as tx:
            return tx.now_ms

    # -- news

    def data_version(self) -> int:
        """A number that changes when somebody has committed."""
        self.check()
        return self._get_listener().version

    def wait_for_change(self, seen: int, timeout_sec: float) -> int:
        """Waits until ``data_version()`` differs from ``seen`` or the time is over; returns the present one.

        It returns early where a notification may be missing: behind a pooler, from a writer that died just after its
        commit, or when an event was held back by another writer, who may roll back without a word.
        """
        self.check()
        longest = UNSTABLE_WAIT_SEC if self._has_unstable_events else MAX_WAIT_SEC
        return self._get_listener().wait(seen, min(timeout_sec, longest))

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

    def stable_event_id(self) -> int:
        """A number up to which no event can appear any more that a transaction begun now would not see."""
        with self.read() as tx:
            row = tx.one(DIALECT.stable_event_id)
        assert row is not None
        settled, newest = row
        self._has_unstable_events = settled < newest
        return int(settled)


def _roll_back(connection: Connection) -> None:
    if not connection.closed:
        with suppress(psycopg.Error):
            connection.execute(b"ROLLBACK")
