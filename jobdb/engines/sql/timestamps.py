"""The timestamps of events on the wire.

Called by publish, before and under the lock, and by the outbox of tickets. Never reads the clock: the caller gives the
time.
"""

from __future__ import annotations

import time

_last_second = (-1, "")


def wire_timestamp(now_ms: int) -> str:
    """Format a time as ``2026-06-19T09:32:00Z``.

    The text of the last second is cached: a busy publisher needs it thousands of times.

    Args:
        now_ms: Unix milliseconds.
    """
    global _last_second
    second, last = now_ms // 1000, _last_second
    if last[0] != second:
        # Read and assigned as a whole: several threads may run this at the same time.
        _last_second = last = (second, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)))
    return last[1]
