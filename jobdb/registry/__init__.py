"""The public interface: :class:`Registry` checks arguments and calls the engine; one transaction per verb.

Called by applications, by every command that opens a database, and by the packages above (``mqtt``, ``legacy``,
``operations``, ``doctor``); calls ``core`` and the engine, and runs no SQL of its own. ``registry.py`` opens it; the
verbs are in ``jobs.py``, ``claims.py``, ``events.py``, ``subscribers.py``, ``tokens.py``.
"""

from __future__ import annotations

from .claims import DEFAULT_LEASE_SEC, DEFAULT_STRIKE_LIMIT
from .registry import DEFAULT_BUSY_SEC, Registry

__all__ = ["DEFAULT_BUSY_SEC", "DEFAULT_LEASE_SEC", "DEFAULT_STRIKE_LIMIT", "Registry"]
