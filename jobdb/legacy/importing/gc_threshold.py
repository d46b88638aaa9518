"""A higher threshold of Python's garbage collector while an import runs.

Called by the importer and by the reader process. Both make many small values, none of them in cycles, and hold
thousands of them at a time, which the collector would walk through again and again to find nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

GC_THRESHOLD = 100_000
"""New containers between two collections; Python's default is 700."""


@contextmanager
def raised_gc_threshold() -> Iterator[None]:
    """Let the collector run rarely, and restore its thresholds at the end. Where it is off it stays off."""
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], GC_THRESHOLD), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
