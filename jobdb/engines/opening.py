"""From a database URL to an open engine. The drivers are imported here, when one is needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import Unavailable
from .sql.engine import SqlEngine

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..urls import DatabaseUrl
    from ..vault import Vault
    from .base import Engine
    from .sql.transaction import Store


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
        from .postgresql.opening import open_postgresql

        return _listened_to(open_postgresql(url, create=create, durability=durability, busy_sec=busy_sec, vault=vault))
    from .sqlite.opening import open_store

    store: Store = open_store(
        url.path,
        create=create,
        durability=durability,
        busy_sec=busy_sec,
        clock=clock,
        checkpoint_pages=checkpoint_pages,
    )
    return _listened_to(SqlEngine(store, vault))


def _listened_to(engine: Engine) -> Engine:
    """Times the verbs for the log, where a log is kept; a program without logging does not even import it."""
    if "logging" not in sys.modules:
        return engine
    from .timing import timed

    return timed(engine)
