"""Durations as text, and the one table of their units.

Called by the command line, which shows and reads durations, and by the doctor. Imports nothing.
"""

from __future__ import annotations

SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
"""The units that a duration may be given in."""

_LARGER_UNITS = ("d", "h", "m")
"""The units that a duration is shown in, besides seconds."""


def format_duration(seconds: float, *, precise: bool = False) -> str:
    """Return a duration in one unit: ``45s``, ``12m``, ``3h``, ``9d``. A negative one counts as zero.

    Args:
        seconds: the duration.
        precise: use a larger unit only from two of it or for whole ones: ``90s`` and ``2m``, not ``1m``. Without it the
            largest unit is used and the rest is dropped.

    Example:
        >>> format_duration(5400), format_duration(5400, precise=True)
        ('1h', '90m')
    """
    whole = max(0, round(seconds) if precise else int(seconds))
    for unit in _LARGER_UNITS:
        size = SECONDS_PER_UNIT[unit]
        if whole >= size and not (precise and whole < 2 * size and whole % size):
            return f"{whole // size}{unit}"
    return f"{whole}s"
