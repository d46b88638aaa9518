"""The durations of verbs and waits, for the log: wrappers of every verb and of the store, so that both stay plain.

Used by ``open.py`` when the logger ``jobdb.verbs`` is at DEBUG by then (``jobdb -vv``); unused, it costs nothing. A
record carries its facts as attributes too, for handlers that write JSON or feed a tracer: ``verb``, ``duration_ms``,
``outcome``; of a transaction ``waited_ms``, ``worked_ms``, ``committed_ms``. Neither arguments nor results are logged,
so no secret is.
"""

from __future__ import annotations

import logging
import time
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from .store import DatabaseFile, Row, Store, Transaction
    from .traits import StableEvents, Traits
    from .verbs import Verb

LOGGER = logging.getLogger("jobdb.verbs")


def is_traced() -> bool:
    """Return whether somebody listens."""
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
    """A store whose waits are logged: for the turn to write, for the disk, for news. All else is the store's own.

    Args:
        store: the store itself.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.clock = store.clock
        self.busy_sec = store.busy_sec

    @property
    def traits(self) -> Traits:
        """What this kind of database can do."""
        return self._store.traits

    @property
    def file(self) -> DatabaseFile | None:
        """The database's file; None where the database is not one file."""
        return self._store.file

    def check(self) -> None:
        """Refuse work in a forked child or after close."""
        self._store.check()

    def write(self) -> AbstractContextManager[Transaction]:
        """Return the block of one immediate transaction; its parts are logged."""
        return _TimedWrite(self._store.write())

    def read(self) -> AbstractContextManager[Transaction]:
        """Return the block of one read transaction."""
        return self._store.read()

    def sync(self) -> None:
        """Return when everything committed before the call is durable."""
        self._store.sync()

    def data_version(self) -> int:
        """Return a number that changes when somebody else has committed."""
        return self._store.data_version()

    def wait_for_change(self, seen: int, timeout_sec: float) -> int:
        """Wait for news; log how long."""
        began = time.perf_counter()
        version = self._store.wait_for_change(seen, timeout_sec)
        took = _ms_since(began)
        LOGGER.debug("waited %.1f ms for news", took, extra={"wait": "news", "duration_ms": took})
        return version

    def stable_events(self) -> StableEvents:
        """Return up to where the order of the events is final."""
        return self._store.stable_events()

    def query(self, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
        """Run one read-only SELECT of a person's."""
        return self._store.query(sql, limit=limit, timeout_sec=timeout_sec)

    def describe(self) -> str:
        """Return engine, version and place for a person."""
        return self._store.describe()

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the database; log how long, as a last checkpoint may take its time."""
        log_duration("close", self._store.close)(checkpoint=checkpoint)


class _TimedWrite:
    """A block around a transaction's own. No generator: the transaction must see whose function it is."""

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
