"""A higher threshold of Python's garbage collector while an import runs.

Called by the importer and by the reader process. Both create many small values, none of them in cycles, and keep
thousands of them at a time, which the collector would traverse repeatedly without finding garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

GC_THRESHOLD = 100_000
"""The number of new containers between two collections; Python's default is 700."""


@contextmanager
def raised_gc_threshold() -> Iterator[None]:
    """Let the collector run rarely, and restore its thresholds at the end; if it is disabled, leave it so."""
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], GC_THRESHOLD), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
