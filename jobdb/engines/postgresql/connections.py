"""The address of a PostgreSQL server, and a connection to it with the properties of its session.

Called by the pool, the listener and the migrations.

TLS, passwords and all other options of libpq come from the URL or libpq's environment (``PGPASSWORD``, ``PGSSLMODE``,
a password file, …). Source: https://www.postgresql.org/docs/current/libpq-connect.html
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ...errors import DatabaseMissing, InvalidInput, Unavailable, Unusable
from .error_translation import connection_error_text

if TYPE_CHECKING:
    from collections import deque


class PoolSlot:
    """A connection's place in the pool; free again when the connection is closed or no longer referenced.

    Attributes:
        free: the connection is closed, although something, such as a traceback, may still refer to it.
    """

    __slots__ = ("__weakref__", "free")

    def __init__(self) -> None:
        self.free = False


class SessionInfo(NamedTuple):
    """The properties of the server's session behind a connection.

    Attributes:
        direct: the session belongs to this connection alone; otherwise a pooler may lend it to others.
        configured_commit: `synchronous_commit` as configured on the server for this role and database.
        configured_path: `search_path` as configured there.
    """

    direct: bool
    configured_commit: str
    configured_path: str


class TransactionMode(NamedTuple):
    """A kind of transaction.

    Attributes:
        begin: the statement that begins it.
        writes: it may write, so its commit may have to be durable.
    """

    begin: str
    writes: bool


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection with a name of its own, which counts its transactions.

    Attributes:
        client: its name.
        transaction_count: the number of transactions it has begun.
        warnings: the server's last warnings: SQLSTATE and text.
        session: the server's session behind it.
        begin_statements: the statements that begin each kind of transaction, with its settings; built on first use.
        slot: its place in the pool; None outside a pool.
        idle_since: when it was last used, by ``time.monotonic()``.
    """

    client = ""
    transaction_count = 0
    warnings: deque[tuple[str | None, str | None]]
    session = SessionInfo(direct=False, configured_commit="on", configured_path="")
    begin_statements: dict[TransactionMode, bytes]
    slot: PoolSlot | None = None
    idle_since = 0.0

    def __del__(self, _warn: object = None) -> None:
        """Suppress psycopg's warning: an exception can interrupt a verb. libpq closes it, except in a forked child."""


def roll_back(connection: Connection) -> None:
    """Roll back a connection's transaction, if there is one; a broken connection no longer has one."""
    if not connection.closed:
        with suppress(psycopg.Error):
            connection.execute(b"ROLLBACK")


MIN_SERVER_RELEASE = 14
"""The oldest release that supports the SQL of the schema and the statements."""

CONNECT_SEC = 10

# A server whose host has vanished sends nothing. Verbs must not wait for it for hours: they give up after 30 seconds.
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}

# Without a handler, psycopg's warnings would go to stderr although the caller gets the error.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class Address:
    """A server's address; its representation contains no password.

    Args:
        url: ``postgresql://…``.
        display_url: the same without its password.

    Raises:
        InvalidInput: libpq cannot read the URL.
    """

    def __init__(self, url: str, display_url: str) -> None:
        try:
            self._parameters = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # libpq's message quotes the invalid part, which can be a part of the password.
            raise InvalidInput(
                f"{display_url} is not a URL that PostgreSQL can read; write postgresql://USER@HOST:PORT/NAME with the "
                "password in ~/.pgpass; one in the URL needs %40 %3A %2F %25 for @ : / and %"
            ) from None
        self.display_url = display_url

    def __repr__(self) -> str:
        return f"<Address {self.display_url}>"

    def connect(self) -> Connection:
        """Return a new connection in autocommit.

        Raises:
            DatabaseMissing: the server has no such database.
            Unavailable: the server cannot be reached or refuses the connection.
            Unusable: it is too old, or the database does not store Unicode text.
        """
        try:
            connection = Connection.connect(**self.parameters())
        except psycopg.OperationalError as error:
            # libpq reports no SQLSTATE for a connection that failed.
            what = connection_error_text(error)
            if 'FATAL: database "' in what and "does not exist" in what:
                raise DatabaseMissing(
                    f"{self.display_url}: {what}. Create it with 'createdb', then run 'jobdb init'"
                ) from error
            raise Unavailable(
                f"cannot connect to {self.display_url}: {what}. Check host, port, user and password, and that the "
                "server runs"
            ) from error
        try:
            self._check_server(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def parameters(self) -> dict[str, Any]:
        """Return the arguments of ``psycopg.connect``."""
        defaults = {"connect_timeout": CONNECT_SEC, "fallback_application_name": "jobdb", **_KEEPALIVES}
        return {
            **defaults,
            **self._parameters,
            "client_encoding": "UTF8",
            "autocommit": True,
            "prepare_threshold": None,  # until the session is known to be direct
        }

    def _check_server(self, connection: Connection) -> None:
        release = connection.info.server_version // 10_000
        if release < MIN_SERVER_RELEASE:
            raise Unusable(f"{self.display_url} runs PostgreSQL {release}; jobdb needs {MIN_SERVER_RELEASE} or newer")
        if connection.info.parameter_status("server_encoding") != "UTF8":
            raise Unusable(f"{self.display_url} does not store Unicode text; create the database with ENCODING 'UTF8'")
