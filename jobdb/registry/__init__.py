"""The public interface: :class:`Registry` checks arguments and calls the engine; one transaction per verb.

Called by applications, by every command that opens a database, and by the packages above (``mqtt``, ``legacy``,
``operations``, ``doctor``); calls ``core`` and the engine, and runs no SQL of its own. ``registry.py`` opens it; the
verbs are in ``jobs.py``, ``claims.py``, ``events.py``, ``subscribers.py``, ``tokens.py``; ``asynchronous.py`` has them
for asyncio, and is imported when :class:`AsyncRegistry` is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .claims import DEFAULT_LEASE_SEC, DEFAULT_STRIKE_LIMIT
from .registry import DEFAULT_BUSY_SEC, Registry

if TYPE_CHECKING:
    from .asynchronous import AsyncRegistry

__all__ = ["DEFAULT_BUSY_SEC", "DEFAULT_LEASE_SEC", "DEFAULT_STRIKE_LIMIT", "AsyncRegistry", "Registry"]


def __getattr__(name: str) -> Any:
    if name != "AsyncRegistry":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .asynchronous import AsyncRegistry

    return AsyncRegistry
