"""Another process that has a database open."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

from jobdb import Registry

TIMEOUT_SEC = 60


def _hold(path: str, ready: Event, stop: Event, close: bool) -> None:
    with Registry.open(path) as registry:
        registry.count_by_status()
        ready.set()
        stop.wait(TIMEOUT_SEC)
        if not close:
            os._exit(0)


@contextmanager
def held_open(path: Path, *, close: bool = True) -> Iterator[None]:
    """Keep the database open in another process; without ``close`` that process then ends without closing it."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(path), ready, stop, close))
    holder.start()
    try:
        assert ready.wait(TIMEOUT_SEC)
        yield
    finally:
        stop.set()
        holder.join(TIMEOUT_SEC)
