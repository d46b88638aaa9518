"""How often Python looks for cycles while an import runs.

Called by the importer and by the reading process. Both make many small values, none of them in cycles, and hold
thousands of them at a time, which the collector would walk through again and again to find nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

GC_THRESHOLD = 100_000
"""New containers between two looks; Python's own measure is 700."""


@contextmanager
def raised_gc_threshold() -> Iterator[None]:
    """Makes the collector look rarely, and puts its measures back. Where it is off it stays off."""
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], GC_THRESHOLD), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
