"""Clocks that a test sets."""

from __future__ import annotations

from tests.support.databases import START_MS, Database


class ManualClock:
    """A clock in Unix milliseconds that only the test advances; call it to read it."""

    def __init__(self, now: int = START_MS) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class DatabaseClock:
    """The clock of a test's database, of any engine, stopped at `START_MS`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.now_ms = START_MS
        database.set_clock(self.now_ms)

    def advance(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)
        self._database.set_clock(self.now_ms)
