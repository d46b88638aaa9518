"""Times: Unix milliseconds in the database, aware UTC datetimes in objects, text on the wire and in JSON.

Used by the records, the registry, the doctor, the tickets and the command line; imports nothing from jobdb.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Return the Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def from_ms(ms: int | None) -> datetime | None:
    """Return Unix milliseconds as an aware UTC datetime."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def format_time(moment: datetime | None) -> str | None:
    """Return a time as text, such as ``2026-06-19T09:32:00Z``; with milliseconds only if they are not 0."""
    if moment is None:
        return None
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if moment.microsecond:
        return f"{text}.{moment.microsecond // 1000:03d}Z"
    return text + "Z"
