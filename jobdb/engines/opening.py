"""From a database URL to an open engine. The drivers are imported here, when one is needed."""

from __future__ import annotations

from collections.abc import Callable

from ..urls import DatabaseUrl
from ..vault import Vault
from .base import Engine
from .sql.engine import SqlEngine
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
    from .sqlite.opening import open_store

    assert url.path is not None
    store: Store = open_store(
        url.path,
        create=create,
        durability=durability,
        busy_sec=busy_sec,
        clock=clock,
        checkpoint_pages=checkpoint_pages,
    )
    return SqlEngine(store, vault)
