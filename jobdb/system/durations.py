"""Durations as text, and the one table of their units.

Called by the command line, which shows and reads durations, and by the doctor. Imports nothing.
"""

from __future__ import annotations

SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
"""The units that a duration may be given in."""

_LARGER_UNITS = ("d", "h", "m")
"""The units that a duration is shown in, besides seconds."""


def format_duration(seconds: float) -> str:
    """Return a duration in one unit, in at most five characters: ``45s``, ``90s``, ``12m``, ``3h``, ``9d``.

    A larger unit is used from two of it on, or for exactly one: one unit alone would be too coarse below that.

    Args:
        seconds: the duration; a negative one counts as zero.

    Example:
        >>> format_duration(3600), format_duration(5400), format_duration(9000)
        ('1h', '90m', '2h')
    """
    whole = max(0, int(seconds))
    for unit in _LARGER_UNITS:
        size = SECONDS_PER_UNIT[unit]
        if whole >= 2 * size or whole == size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
