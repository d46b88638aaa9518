"""Wrappers of the verbs and the store that log durations, so that neither contains logging code.

Used by ``open.py`` if the logger ``jobdb.verbs`` is at DEBUG when a database is opened (``jobdb -vv``); otherwise it
costs nothing. A log record also carries its facts as attributes, for handlers that write JSON or feed a tracer:
``verb``, ``duration_ms``, ``outcome``; for a transaction ``waited_ms``, ``worked_ms``, ``committed_ms``. Neither
arguments nor results are logged, so no secret is.
"""

from __future__ import annotations

import logging
import time
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from ..system.interrupt_safe_flag import Flag
    from .stable_events import StableEvents
    from .store import DatabaseFile, Row, Store, Transaction
    from .traits import Traits
    from .verbs import Verb

LOGGER = logging.getLogger("jobdb.verbs")


def is_traced() -> bool:
    """Return whether durations are logged."""
    return LOGGER.isEnabledFor(logging.DEBUG)


def log_duration(name: str, run: Verb) -> Verb:
    """Wrap a verb so that each call logs its duration and outcome."""

    @wraps(run)
    def logged(*arguments: Any, **named: Any) -> Any:
        began, outcome = time.perf_counter(), "ok"
        try:
            return run(*arguments, **named)
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            took = _ms_since(began)
            LOGGER.debug(
                "%s: %s after %.1f ms",
                name,
                outcome,
                took,
                extra={"verb": name, "outcome": outcome, "duration_ms": took},
            )

    return logged


class TracedStore:
    """A store whose waits are logged: for the write lock, for the disk, for changes. The rest is delegated.

    Args:
        store: the store to wrap.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.clock = store.clock
        self.busy_sec = store.busy_sec

    @property
    def traits(self) -> Traits:
        """The capabilities of this kind of database."""
        return self._store.traits

    @property
    def file(self) -> DatabaseFile | None:
        """The database's file; None if the database is not one file."""
        return self._store.file

    def check(self) -> None:
        """Refuse work in a forked child or after close."""
        self._store.check()

    def write(self) -> AbstractContextManager[Transaction]:
        """Return a context manager for one write transaction, which logs the durations of its parts."""
        return _TimedWrite(self._store.write())

    def read(self) -> AbstractContextManager[Transaction]:
        """Return a context manager for one read transaction."""
        return self._store.read()

    def sync(self) -> None:
        """Return once everything committed before the call is durable."""
        self._store.sync()

    def data_version(self) -> int:
        """Return a number that changes when another process or connection has committed."""
        return self._store.data_version()

    def wait_for_change(self, seen: int, timeout_sec: float, *, wake: Flag | None = None) -> int:
        """Wait for a change; log how long that took."""
        began = time.perf_counter()
        version = self._store.wait_for_change(seen, timeout_sec, wake=wake)
        took = _ms_since(began)
        LOGGER.debug("waited %.1f ms for news", took, extra={"wait": "news", "duration_ms": took})
        return version

    def stable_events(self) -> StableEvents:
        """Return the position up to which the order of the events is final."""
        return self._store.stable_events()

    def query(self, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
        """Run an ad-hoc read-only SELECT."""
        return self._store.query(sql, limit=limit, timeout_sec=timeout_sec)

    def describe(self) -> str:
        """Return a description for people: engine, version and place."""
        return self._store.describe()

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the database; log how long, as a last checkpoint may take its time."""
        log_duration("close", self._store.close)(checkpoint=checkpoint)


class _TimedWrite:
    """A context manager around a transaction's own. Not a generator: the transaction must see its caller's frame."""

    def __init__(self, block: AbstractContextManager[Transaction]) -> None:
        self._block = block
        self._began = self._entered = time.perf_counter()

    def __enter__(self) -> Transaction:
        self._began = time.perf_counter()
        transaction = self._block.__enter__()
        self._entered = time.perf_counter()
        return transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        waited = round((self._entered - self._began) * 1000, 3)
        worked = _ms_since(self._entered)
        handled = self._block.__exit__(kind, error, trace)
        if kind is None:
            LOGGER.debug(
                "wrote: waited %.1f ms, worked %.1f ms, committed and synced in %.1f ms",
                waited,
                worked,
                committed := _ms_since(self._began) - waited - worked,
                extra={"waited_ms": waited, "worked_ms": worked, "committed_ms": round(committed, 3)},
            )
        return handled


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
