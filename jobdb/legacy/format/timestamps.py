"""Times of the old registry: ``YYYY-MM-DDTHH:MM:SSZ`` to Unix milliseconds and back.

Called by the parsers of records and log lines, and by modules that render or report a time. Pure.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_MINUTE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]")
_SECONDS = {f":{second:02d}Z": second * 1000 for second in range(60)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def parse_time(text: str) -> int | None:
    """Return ``YYYY-MM-DDTHH:MM:SSZ`` as Unix milliseconds; None for any other text."""
    second = _SECONDS.get(text[16:])
    if second is None:
        return None
    minute = _minute_ms(text[:16])
    return None if minute is None else minute + second


@lru_cache(maxsize=4096)
def _minute_ms(text: str) -> int | None:
    """Return ``YYYY-MM-DDTHH:MM`` as Unix milliseconds. Most times of a registry share their minutes with others."""
    if _MINUTE.fullmatch(text) is None:
        return None
    try:
        return (datetime.fromisoformat(text + "Z") - _EPOCH) // _MILLISECOND
    except ValueError:
        return None


def format_time(ms: int) -> str:
    """Return Unix milliseconds as ``YYYY-MM-DDTHH:MM:SSZ``, without fractions, which the old scripts do not know."""
    moment = _EPOCH + timedelta(seconds=ms // 1000)
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
