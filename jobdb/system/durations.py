"""Durations as text, and the table of their units.

Called by the command line, which shows and parses durations, and by the doctor. Imports nothing.
"""

from __future__ import annotations

SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
"""The units in which a duration may be given."""

_LARGER_UNITS = ("d", "h", "m")
"""The units in which a duration is shown, besides seconds."""


def format_duration(seconds: float) -> str:
    """Format a duration in one unit, in at most five characters: ``45s``, ``90s``, ``12m``, ``3h``, ``9d``.

    A larger unit is used for two or more of it, or for exactly one: anything in between would be too coarse.

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
