"""The refusal of a store that is closed, or that a forked child inherited.

Called by the PostgreSQL store and its pool, and by the SQLite store's fork handling. Never touches a database.

Both stores check before any call into their driver: a child that used the parent's connection would break it.
"""

from __future__ import annotations

import os

from ..errors import ForkedRegistry, InvalidInput


def require_alive(place: object, *, opener_pid: int, closed: bool, advice: str) -> None:
    """Refuse work in a forked child or after close.

    Args:
        place: the database, as messages name it.
        opener_pid: the process that opened it.
        closed: it was closed.
        advice: what to do instead in a child.

    Raises:
        ForkedRegistry: this is not the process that opened it.
        InvalidInput: it is closed.
    """
    if os.getpid() != opener_pid:
        raise ForkedRegistry(
            f"this registry on {place} was opened by process {opener_pid}, and its child {os.getpid()} cannot use it",
            advice=advice,
        )
    if closed:
        raise closed_error(place)


def closed_error(place: object) -> InvalidInput:
    """Return the error for a verb on a closed registry."""
    return InvalidInput(f"this registry on {place} is closed", advice="open a new one")
