"""Connections to a PostgreSQL server: the address, and the pool.

TLS, passwords and whatever else libpq knows come through the URL or libpq's environment (``PGPASSWORD``,
``PGSSLMODE``, a passfile, …). Source: https://www.postgresql.org/docs/current/libpq-connect.html
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8Dumper
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from ...errors import Busy, DatabaseMissing, InvalidInput, JobdbError, Unavailable, Unusable
from .failures import connecting, translate
from .sessions import introduce, settings

if TYPE_CHECKING:
    from collections.abc import Iterator


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection, by a name of its own, that counts its transactions.

    Attributes:
        client: its name.
        number: how many transactions it has begun.
        warnings: what the server has warned of, the last ones: SQLSTATE and text.
        direct: whether the server's session is its own, and not lent by a pooler.
        configured_commit: `synchronous_commit` as the server is configured for this role and database.
        configured_path: `search_path` likewise.
        begins: how its transactions begin, with their settings.
    """

    client = ""
    number = 0
    warnings: deque[tuple[str | None, str | None]]
    direct = False
    configured_commit = "on"
    configured_path = ""
    begins: dict[str, bytes]


LEAST_SERVER = 14
"""The oldest release whose SQL the schema and the statements keep to."""

MOST_CONNECTIONS = 8
CONNECT_SEC = 10

# A server whose host vanished says nothing, and a verb must not wait for it for hours: given up after half a minute.
_SILENCE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}

# A library without a say in logging: the pool's warnings would go to stderr although the caller gets the error.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class Address:
    """Where the server is. Shows no password.

    Args:
        url: ``postgresql://…``.
        shown: the same without its password.

    Raises:
        InvalidInput: libpq cannot read the URL.
    """

    def __init__(self, url: str, shown: str) -> None:
        try:
            self._parameters = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # libpq's own words quote what it stumbled over, and that can be a part of the password.
            raise InvalidInput(
                f"{shown} is no URL that PostgreSQL can read; write postgresql://USER@HOST:PORT/NAME with the password "
                "in ~/.pgpass; one in the URL needs %40 %3A %2F %25 for @ : / and %"
            ) from None
        self.shown = shown

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"

    def connect(self) -> Connection:
        """A new connection in autocommit.

        Raises:
            DatabaseMissing: the server has no such database.
            Unavailable: the server cannot be reached or refuses us.
            Unusable: it is too old, or does not hold Unicode text.
        """
        try:
            connection = Connection.connect(**self.parameters())
        except psycopg.OperationalError as error:
            # libpq gives no SQLSTATE for a connection that it did not get.
            what = connecting(error)
            if 'FATAL: database "' in what and "does not exist" in what:
                raise DatabaseMissing(f"{self.shown}: {what}. Make it with createdb, then 'jobdb init'") from error
            raise Unavailable(
                f"cannot connect to {self.shown}: {what}. Check host, port, user and password, and that the server runs"
            ) from error
        try:
            self._check_server(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def parameters(self) -> dict[str, Any]:
        """What psycopg.connect takes."""
        defaults = {"connect_timeout": CONNECT_SEC, "fallback_application_name": "jobdb", **_SILENCE}
        return {
            **defaults,
            **self._parameters,
            "client_encoding": "UTF8",
            "autocommit": True,
            "prepare_threshold": None,  # until the session is known to be ours alone
        }

    def _check_server(self, connection: Connection) -> None:
        release = connection.info.server_version // 10_000
        if release < LEAST_SERVER:
            raise Unusable(f"{self.shown} runs PostgreSQL {release}; jobdb needs {LEAST_SERVER} or newer")
        if connection.info.parameter_status("server_encoding") != "UTF8":
            raise Unusable(f"{self.shown} does not hold Unicode text; make the database with ENCODING 'UTF8'")


class Pool:
    """The connections of one store.

    Args:
        address: the server.
        durability: "full" or "normal".
        busy_sec: how long to wait for a free connection, and for a lock, in seconds.
    """

    def __init__(self, address: Address, *, durability: str, busy_sec: float) -> None:
        self.address = address
        self._durability = durability
        self._busy_sec = busy_sec
        self.clients: deque[str] = deque(maxlen=1000)
        self._pool = ConnectionPool(
            connection_class=Connection,
            kwargs=address.parameters(),
            configure=self._configure,
            min_size=0,
            max_size=MOST_CONNECTIONS,
            max_idle=60.0,
            timeout=busy_sec,
            reconnect_timeout=busy_sec,
            num_workers=1,
            open=True,
            name="jobdb",
        )

    def _configure(self, connection: Connection) -> None:
        """What a connection gets once. Nothing is set in its session: a pooler may lend that to somebody else."""
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.client = uuid.uuid4().hex
        connection.begins = {}
        self.clients.append(connection.client)
        introduce(connection)

    @contextmanager
    def connection(self, begin: str = "SELECT 1") -> Iterator[Connection]:
        """One connection, given back when the block is left; a broken one is replaced.

        Args:
            begin: the first statement; one that begins a transaction is followed by the transaction's settings. Idle
                connections that a restart of the server has cut are found by it.

        Raises:
            Unavailable: the server could not be reached within the limit.
            Busy: all connections of this registry were in use for so long.
        """
        stale = MOST_CONNECTIONS
        while True:
            connection: Connection | None = None
            try:
                connection = self._take()
                try:
                    connection.execute(self._first(connection, begin), prepare=False)
                except psycopg.Error as error:
                    if stale and connection.closed:
                        stale -= 1
                        continue
                    raise translate(error, self.address.shown, 0.0) from error
                yield connection
                return
            finally:
                if connection is not None:
                    self._give_back(connection)

    def _give_back(self, connection: Connection) -> None:
        """Gives it back; once more where an exception cuts that off, or the pool would count it for ever."""
        try:
            self._pool.putconn(connection)
        except BaseException:
            with suppress(ValueError):  # it was given back already
                self._pool.putconn(connection)
            raise

    def _first(self, connection: Connection, begin: str) -> bytes:
        if not begin.startswith("BEGIN"):
            return begin.encode()
        found = connection.begins.get(begin)
        if found is None:
            durability = None if begin.endswith("READ ONLY") else self._durability
            local = settings(connection, durability=durability, busy_sec=self._busy_sec)
            found = connection.begins[begin] = f"{begin}; {local}".encode()
        return found

    def _take(self) -> Connection:
        started = time.monotonic()
        try:
            return self._pool.getconn()
        except (PoolTimeout, TooManyRequests) as error:
            raise self._no_connection(time.monotonic() - started) from error
        except PoolClosed as error:
            raise InvalidInput(f"this registry on {self.address.shown} is closed; open a new one") from error

    def _no_connection(self, waited_sec: float) -> JobdbError:
        """Why the pool gave none: asked of the server, because the pool does not say."""
        try:
            self.address.connect().close()
        except JobdbError as error:
            return error
        return Busy(
            f"all {MOST_CONNECTIONS} connections of this registry to {self.address.shown} were in use for "
            f"{waited_sec:.1f} s. Nothing was written: use fewer threads, or allow a longer wait",
            waited_sec=waited_sec,
        )

    def close(self) -> None:
        self._pool.close(timeout=2.0)
