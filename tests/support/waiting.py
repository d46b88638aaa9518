"""Wait for a condition, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

TIMEOUT_SEC = 60.0
POLL_SEC = 0.01


def wait_until(condition: Callable[[], Any], *, limit_sec: float = TIMEOUT_SEC, poll_sec: float = POLL_SEC) -> Any:
    """Poll until ``condition()`` is true, and return its value.

    Raises:
        AssertionError: it was still false after ``limit_sec``.
    """
    deadline = time.monotonic() + limit_sec
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {limit_sec} s"
        time.sleep(poll_sec)
