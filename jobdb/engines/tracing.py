"""How long verbs and waits take, for the log: one wrapper at the engine's interface, so that engines stay plain.

Called when a registry is opened; it does nothing unless the logger ``jobdb.verbs`` is at DEBUG by then (``jobdb -vv``):
unused, it costs nothing. A record carries what it says as attributes too, for handlers that write JSON or feed a
tracer: ``verb``, ``duration_ms``, ``outcome``; of a transaction ``waited_ms``, ``worked_ms``, ``committed_ms``. Neither
arguments nor results are logged, so no secret is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, cast

from .base import Engine
from .store import Store, Transaction

LOGGER = logging.getLogger("jobdb.verbs")


def timed(engine: Engine) -> Engine:
    """The engine, with its verbs and waits timed when somebody listens."""
    if not LOGGER.isEnabledFor(logging.DEBUG):
        return engine
    engine.store = cast(Store, TimedStore(engine.store))
    return cast(Engine, TimedEngine(engine))


def unwrapped(store: Store) -> Store:
    """The store itself, for who must know its kind."""
    return store.unwrapped if isinstance(store, TimedStore) else store


class TimedEngine:
    """An engine whose verbs log how long they took."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if not callable(found):
            return found
        verb = _timed_verb(name, found)
        self.__dict__[name] = verb
        return verb


def _timed_verb(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    def verb(*arguments: Any, **named: Any) -> Any:
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

    return verb


class TimedStore:
    """A store whose waits are logged: for the turn to write, for the disk, for news.

    Attributes:
        unwrapped: the store itself.
    """

    def __init__(self, store: Store) -> None:
        self.unwrapped = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unwrapped, name)

    def write(self) -> AbstractContextManager[Transaction]:
        """One immediate transaction, its parts timed."""
        return _TimedWrite(self.unwrapped.write())

    def wait_for_change(self, seen: int, timeout_sec: float) -> int:
        """Waits for news."""
        began = time.perf_counter()
        version = self.unwrapped.wait_for_change(seen, timeout_sec)
        took = _ms_since(began)
        LOGGER.debug("waited %.1f ms for news", took, extra={"wait": "news", "duration_ms": took})
        return version


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
