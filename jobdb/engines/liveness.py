"""The refusal of a store that is closed or that a fork has carried into another process.

Both stores ask before any call into their driver: a child that touched the parent's connection would break it.
"""

from __future__ import annotations

import os

from ..errors import ForkedRegistry, InvalidInput


def require_alive(place: object, *, opener_pid: int, closed: bool, advice: str) -> None:
    """Refuse work in a forked child or after close.

    Args:
        place: the database, as a message names it.
        opener_pid: the process that opened it.
        closed: whether it was closed.
        advice: what a child does instead.

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
    """Return the error of a verb on a closed registry."""
    return InvalidInput(f"this registry on {place} is closed", advice="open a new one")
