"""The migrations of a PostgreSQL database: they create the tables, or upgrade older ones to the current schema.

Called by the ``migrate`` command, and when a database is opened with ``create``. Uses a connection of its own, never
the pool.

All steps are one transaction, under an advisory lock: if two processes migrate at the same time, one does and the other
finds it done. The tables are in the first schema of the search path. No backup is made: use pg_dump, or the server's
own backups.
"""

from __future__ import annotations

from pathlib import Path

import psycopg

from jobdb.schema import SCHEMA_VERSION, migration_files

from ...errors import DatabaseMissing, SchemaMismatch
from ...urls import parse_url
from ..statements import Statement, StatementSet, psycopg_text
from .connections import Address, Connection
from .error_translation import translate


class MigrationStatements(StatementSet):
    """The statements of ``migrations.sql``."""

    reset_session: Statement
    lock_migrations: Statement
    migrations_table_exists: Statement
    create_migrations: Statement
    schema_version: Statement
    can_read_views: Statement
    insert_migration: Statement


MIGRATIONS = MigrationStatements(Path(__file__).with_name("migrations.sql"))


def migrate_postgresql(url: str) -> list[int]:
    """Migrate a database to the current schema; all steps or none.

    Args:
        url: ``postgresql://…``; the role must be allowed to create tables.

    Returns:
        The numbers of the migrations that were applied; empty if there was nothing to do.

    Raises:
        SchemaMismatch: the schema is newer than this jobdb.
        DatabaseMissing, Unavailable, StorageFailed: the server refuses; the database is unchanged.
    """
    place = parse_url(url)
    address = Address(place.text, str(place))
    with address.connect() as connection:
        try:
            return _migrate(connection, address)
        except psycopg.Error as error:
            raise translate(error, address.display_url, 0.0) from error


def _migrate(connection: Connection, address: Address) -> list[int]:
    applied = []
    with connection.transaction():
        connection.execute(psycopg_text(MIGRATIONS.reset_session.text).encode())
        connection.execute(psycopg_text(MIGRATIONS.lock_migrations.text).encode())
        version = _version(connection)
        if version is None:
            connection.execute(psycopg_text(MIGRATIONS.create_migrations.text).encode())
            version = 0
        if version > SCHEMA_VERSION:
            raise SchemaMismatch(_newer_schema_message(address, version))
        for number, name, path in migration_files("postgresql"):
            if number > version:
                connection.execute(path.read_text("utf-8").encode())
                connection.execute(
                    psycopg_text(MIGRATIONS.insert_migration.text).encode(), {"number": number, "name": name}
                )
                applied.append(number)
    return applied


def _version(connection: Connection) -> int | None:
    """Return the schema's version; None if there is no table of migrations."""
    known = connection.execute(psycopg_text(MIGRATIONS.migrations_table_exists.text).encode()).fetchone()
    if known != (True,):
        return None
    row = connection.execute(psycopg_text(MIGRATIONS.schema_version.text).encode()).fetchone()
    return 0 if row is None else int(row[0])


def _newer_schema_message(address: Address, version: int) -> str:
    return (
        f"{address.display_url} has schema version {version} and this jobdb knows {SCHEMA_VERSION}; "
        "a newer jobdb has migrated it: pip install --upgrade jobdb"
    )


def schema_version(connection: Connection) -> int:
    """Return the number of the last applied migration; 0 if there is none."""
    return _version(connection) or 0


def _is_query_only_role(connection: Connection) -> bool:
    """Return whether this role may read the registry's views but not its version: a role for `jobdb query`."""
    row = connection.execute(psycopg_text(MIGRATIONS.can_read_views.text).encode()).fetchone()
    return row == (True,)


def require_version(connection: Connection, address: Address) -> None:
    """Refuse a database whose schema this version of jobdb does not support.

    Raises:
        DatabaseMissing: there are no tables.
        SchemaMismatch: they are older or newer.
    """
    try:
        version = schema_version(connection)
    except psycopg.errors.InsufficientPrivilege:
        if _is_query_only_role(connection):
            return  # the views are stable, and the server denies everything else
        raise
    if version == 0:
        raise DatabaseMissing(f"{address.display_url} holds no registry; create one with 'jobdb init' on the same URL")
    if version < SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{address.display_url} has schema version {version} and this jobdb needs {SCHEMA_VERSION}; stop the "
            "workers of the older jobdb, which would continue to write; make a backup (pg_dump), and run 'jobdb "
            "migrate' on the URL"
        )
    if version > SCHEMA_VERSION:
        raise SchemaMismatch(_newer_schema_message(address, version))
