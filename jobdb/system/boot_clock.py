"""Seconds since the machine was started, by a clock that no one can set and that also runs while it is suspended.

Used by whatever holds a lease: the worker, its keepers and ``Registry.working``. Imports nothing from jobdb.

``time.monotonic`` stands still on Linux while the machine is suspended: a laptop that slept for an hour would believe
that its leases are still live. On macOS it does, too, and there CLOCK_MONOTONIC is the clock that goes on.
Source: clock_gettime(2), CLOCK_BOOTTIME; clock_gettime(3) of macOS.
"""

from __future__ import annotations

import time
from functools import partial

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

boot_time = partial(time.clock_gettime, _CLOCK)
"""Return the seconds since the start of the machine, suspension included. Only differences mean anything."""
