"""The opening of an engine from a database URL. A driver is imported here, when it is needed.

Called by ``Registry.open``. Calls the ``open.py`` of the SQLite or the PostgreSQL engine, and runs no SQL itself except
to record the key's id in a new file.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import KeyProblem, Unavailable
from .sql.engine import Engine
from .sql.sealer import Sealer
from .verbs import with_verbs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..crypto.vault import Vault
    from ..urls import DatabaseUrl
    from .store import Store


def require_postgresql_driver(url: DatabaseUrl) -> None:
    """Check that the driver is installed. Called first, so that no other failed import is taken for a missing driver.

    Args:
        url: the database that needs it, for the message.

    Raises:
        Unavailable: the driver is not installed.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise Unavailable(
            f"{url} needs the PostgreSQL driver, which is not installed: pip install 'jobdb[postgresql]'"
        ) from error


def open_engine(
    url: DatabaseUrl,
    *,
    create: bool,
    durability: str,
    busy_sec: float,
    vault: Vault,
    clock: Callable[[], int],
    checkpoint_pages: int,
) -> Engine:
    """Open the engine that the URL names; the arguments are those of ``Registry.open``."""
    if url.path is None:
        require_postgresql_driver(url)
        from .postgresql.engine import PostgresEngine
        from .postgresql.open import open_postgresql

        return _make_engine(
            PostgresEngine, open_postgresql(url, create=create, durability=durability, busy_sec=busy_sec), vault
        )
    from .sqlite.open import open_store

    creates_file = create and not url.path.exists()
    store = open_store(
        url.path,
        create=create,
        durability=durability,
        busy_sec=busy_sec,
        clock=clock,
        checkpoint_pages=checkpoint_pages,
    )
    if creates_file:
        _put_key_id(store, url.path, vault)
    return _make_engine(Engine, store, vault)


def _put_key_id(store: Store, path: Path, vault: Vault) -> None:
    """Store the key's id in a new database whose trust cannot be recorded, for instance without a home folder."""
    from .trust import needs_key_id

    if needs_key_id(path):
        with suppress(KeyProblem), store.write() as tx:
            Sealer(tx, vault).check()


def _make_engine(engine: type[Engine], store: Store, vault: Vault) -> Engine:
    """Create the engine, with logged durations if they are enabled; a program without logging does not import it."""
    if "logging" in sys.modules:
        from .tracing import TracedStore, is_traced, log_duration

        if is_traced():
            return with_verbs(engine, log_duration)(TracedStore(store), vault)
    return engine(store, vault)
