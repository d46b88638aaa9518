"""From a database URL to an open engine. The drivers are imported here, when one is needed."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import KeyProblem, Unavailable
from .sql.engine import SqlEngine
from .sql.sealer import Sealer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..crypto.vault import Vault
    from ..urls import DatabaseUrl
    from .base import Engine
    from .store import Store


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
    """Opens the engine that the URL names; arguments as for ``Registry.open``."""
    if url.path is None:
        try:
            import psycopg  # noqa: F401 - asked for by name, so that the message below fits
        except ImportError as error:
            raise Unavailable(
                f"{url} needs the PostgreSQL driver, which is not installed: pip install 'jobdb[postgresql]'"
            ) from error
        from .postgresql.open import open_postgresql

        return _with_timing(open_postgresql(url, create=create, durability=durability, busy_sec=busy_sec, vault=vault))
    from .sqlite.open import open_store

    made = create and not url.path.exists()
    store: Store = open_store(
        url.path,
        create=create,
        durability=durability,
        busy_sec=busy_sec,
        clock=clock,
        checkpoint_pages=checkpoint_pages,
    )
    if made:
        _put_key_id(store, url.path, vault)
    return _with_timing(SqlEngine(store, vault))


def _put_key_id(store: Store, path: Path, vault: Vault) -> None:
    """Where no note of a new database can be kept, as without a home folder, it must be known by the key's id."""
    from .trust import needs_key_id

    if needs_key_id(path):
        with suppress(KeyProblem), store.write() as tx:
            Sealer(tx, vault).check()


def _with_timing(engine: Engine) -> Engine:
    """Times the verbs for the log, where a log is kept; a program without logging does not even import it."""
    if "logging" not in sys.modules:
        return engine
    from .tracing import timed

    return timed(engine)
