"""The worker's small database for tickets: its location, opening it, creating its tables.

One file for all tickets of a user, shared by that user's processes on this host; it contains no secrets. Called by
:mod:`.ticket_outbox`; calls the SQLite engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..engines.statements import Statement, StatementSet

if TYPE_CHECKING:
    from ..engines.sqlite.auxiliary import AuxiliaryFormat
    from ..engines.sqlite.store import SqliteStore
    from ..engines.store import Transaction

SCHEMA_VERSION = 1
APPLICATION_ID = 1785684596
"""As in ``ticket_store.sql``: "jobt" in ASCII."""
BUSY_SEC = 30.0


class TicketSchemaStatements(StatementSet):
    """The statements of ``ticket_store.sql``."""

    schema_version: Statement
    any_table: Statement
    create_tickets: Statement
    create_ticket_events: Statement
    create_waiting_index: Statement
    create_leases: Statement
    set_application_id: Statement
    set_schema_version: Statement


SCHEMA = TicketSchemaStatements(Path(__file__).with_name("ticket_store.sql"))


def default_path(environ: Mapping[str, str] | None = None) -> Path:
    """Return ``${XDG_STATE_HOME:-~/.local/state}/jobdb/tickets.db``.

    A relative XDG_STATE_HOME is ignored, as the XDG Base Directory Specification requires.
    """
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local", "state")
    return Path(base, "jobdb", "tickets.db")


def open_ticket_store(path: Path, clock: Callable[[], int]) -> SqliteStore:
    """Open the ticket database, creating it if there is none.

    Args:
        path: the database file.
        clock: Unix time in milliseconds.

    Raises:
        UnsafeFileSystem: the folder's file system cannot hold it safely.
        NotAJobdbDatabase, SchemaMismatch, StorageFailed: the file is another program's, newer, or cannot be used.
    """
    from ..engines.sqlite.auxiliary import AuxiliaryFormat, open_auxiliary

    kind = AuxiliaryFormat(
        APPLICATION_ID, SCHEMA_VERSION, "set XDG_STATE_HOME to", "pip install --upgrade 'jobdb[mqtt]'"
    )
    store = open_auxiliary(path, kind, busy_sec=BUSY_SEC, clock=clock)
    try:
        _create_schema(store, path, kind)
    except BaseException:
        store.close()
        raise
    return store


def _create_schema(store: SqliteStore, path: Path, kind: AuxiliaryFormat) -> None:
    """Create the tables in a new file, unless another process has done so first."""
    with store.read() as tx:
        version = _read_version(tx, path, kind)
    if version == SCHEMA_VERSION:
        return
    with store.write() as tx:
        if _read_version(tx, path, kind) == 0:
            for statement in (
                SCHEMA.create_tickets,
                SCHEMA.create_ticket_events,
                SCHEMA.create_waiting_index,
                SCHEMA.create_leases,
                SCHEMA.set_application_id,
                SCHEMA.set_schema_version,
            ):
                tx.run(statement)


def _read_version(tx: Transaction, path: Path, kind: AuxiliaryFormat) -> int:
    """Return the file's schema version; 0 if it has no tables."""
    row = tx.one(SCHEMA.schema_version)
    assert row is not None
    version = int(row[0])
    if version > SCHEMA_VERSION:
        raise kind.newer_error(path, version)
    if version == 0 and tx.one(SCHEMA.any_table) is not None:
        raise kind.foreign_error(path)
    return version
