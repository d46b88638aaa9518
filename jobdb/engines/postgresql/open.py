"""The opening of a PostgreSQL database: the server, its schema, then the store.

Called by ``engines/open.py``. Calls the migrations if tables may be created; checks on a connection of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from ..sql.statements import VERBS
from .connections import Address, Connection
from .dialect import DIALECT
from .error_translation import translate
from .migrations import migrate_postgresql, require_version, schema_version
from .store import PostgresStore

if TYPE_CHECKING:
    from ...urls import DatabaseUrl


def open_postgresql(url: DatabaseUrl, *, create: bool, durability: str, busy_sec: float) -> PostgresStore:
    """Open the database that the URL names; create its tables first if there are none and ``create`` is set.

    Args:
        url: ``postgresql://…``.
        create: create missing tables.
        durability: "full" or "normal".
        busy_sec: how long a verb waits for locks and for the server to come back, in seconds.

    Raises:
        InvalidInput: libpq cannot read the URL.
        DatabaseMissing, SchemaMismatch, Unavailable, Unusable: the database cannot be used.
    """
    address = Address(url.text, str(url))
    with address.connect() as connection:
        try:
            if create and schema_version(connection) == 0:
                migrate_postgresql(url.text)
            require_version(connection, address)
            _warn_of_loss(connection, address)
        except psycopg.Error as error:
            raise translate(error, address.display_url, 0.0) from error
    for statements in (*VERBS, DIALECT):
        statements.load()
    return PostgresStore(address, durability=durability, busy_sec=busy_sec)


def _warn_of_loss(connection: Connection, address: Address) -> None:
    if connection.execute(b"SHOW fsync").fetchone() == ("off",):
        from ...system.caller_warnings import warn_caller

        warn_caller(
            f"{address.display_url} runs with fsync=off: a power failure can destroy it; set fsync=on in "
            "postgresql.conf"
        )
