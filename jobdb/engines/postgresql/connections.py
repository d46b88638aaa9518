"""A PostgreSQL server's address, and a connection to it with what is known of its session.

Called by the pool, the listener and the migrations.

TLS, passwords and whatever else libpq knows come through the URL or libpq's environment (``PGPASSWORD``,
``PGSSLMODE``, a passfile, …). Source: https://www.postgresql.org/docs/current/libpq-connect.html
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
    """A connection's place in the pool; free again when the connection is closed or nothing refers to it any more.

    Attributes:
        free: the connection is closed, and only a traceback may refer to it still.
    """

    __slots__ = ("__weakref__", "free")

    def __init__(self) -> None:
        self.free = False


class SessionInfo(NamedTuple):
    """The server's session behind a connection, as it was found.

    Attributes:
        direct: the session belongs to this connection alone; a pooler lends it to others otherwise.
        configured_commit: `synchronous_commit` as the server is configured for this role and database.
        configured_path: `search_path` likewise.
    """

    direct: bool
    configured_commit: str
    configured_path: str


class TransactionMode(NamedTuple):
    """A kind of transaction.

    Attributes:
        begin: the statement that begins it.
        writes: what it commits may have to be durable.
    """

    begin: str
    writes: bool


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection, by a name of its own, that counts its transactions.

    Attributes:
        client: its name.
        transaction_count: how many transactions it has begun.
        warnings: the server's last warnings: SQLSTATE and text.
        session: the server's session behind it.
        begin_statements: the statements that begin each kind of transaction, with its settings; made when first needed.
        slot: its place in the pool; None outside of it.
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
        """Warn of nothing: an exception may cut a verb off at any step. libpq closes it, and in a child it does not."""


def roll_back(connection: Connection) -> None:
    """End a connection's transaction, if it has one; a broken connection has none any more."""
    if not connection.closed:
        with suppress(psycopg.Error):
            connection.execute(b"ROLLBACK")


MIN_SERVER_RELEASE = 14
"""The oldest release whose SQL the schema and the statements keep to."""

CONNECT_SEC = 10

# A server whose host vanished says nothing, and a verb must not wait for it for hours: given up after half a minute.
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}

# A library without a say in logging: its warnings would go to stderr although the caller gets the error.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class Address:
    """A server's address, which shows no password.

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
            # libpq's own words quote what it stumbled over, and that can be a part of the password.
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
            Unavailable: the server cannot be reached or refuses us.
            Unusable: it is too old, or does not hold Unicode text.
        """
        try:
            connection = Connection.connect(**self.parameters())
        except psycopg.OperationalError as error:
            # libpq gives no SQLSTATE for a connection that it did not get.
            what = connection_error_text(error)
            if 'FATAL: database "' in what and "does not exist" in what:
                raise DatabaseMissing(
                    f"{self.display_url}: {what}. Make it with createdb, then 'jobdb init'"
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
            "prepare_threshold": None,  # until the session is known to be ours alone
        }

    def _check_server(self, connection: Connection) -> None:
        release = connection.info.server_version // 10_000
        if release < MIN_SERVER_RELEASE:
            raise Unusable(f"{self.display_url} runs PostgreSQL {release}; jobdb needs {MIN_SERVER_RELEASE} or newer")
        if connection.info.parameter_status("server_encoding") != "UTF8":
            raise Unusable(f"{self.display_url} does not hold Unicode text; make the database with ENCODING 'UTF8'")
