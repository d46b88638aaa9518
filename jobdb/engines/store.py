"""The seam between verbs and databases: the protocols that a database implements.

Used by the verbs, by both stores, and by the tools above the registry (doctor, copy, import, tickets). Imports no
driver and no store.

A :class:`Store` runs named statements in transactions. The SQLite and the PostgreSQL store implement it, and the verbs
are written once against it. No caller asks a store what kind it is: a store declares its capabilities in its
``Traits``, and a database that is one file offers :class:`DatabaseFile`. Prior art: River's drivers
(``riverdriver``, ``SupportsListener``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ..system.interrupt_safe_flag import Flag
    from .stable_events import StableEvents
    from .statements import Statement
    from .traits import Traits

Row = tuple[Any, ...]


class Transaction(Protocol):
    """Named statements in one transaction. Parameters are given by name; rows are tuples."""

    @property
    def now_ms(self) -> int:
        """The transaction's time, Unix milliseconds, the same throughout; by the server's clock if there is one."""
        ...

    def lock_jobs(self, job_ids: Iterable[str]) -> None:
        """Lock these jobs against other writers until the transaction ends; called before the jobs are read.

        If the transaction locks the whole database, this does nothing. Otherwise the jobs are locked in a fixed order,
        whatever the order given, so that two transactions never wait for each other.
        """
        ...

    def one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        """Return the first row, or None."""
        ...

    def all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        """Return all rows."""
        ...

    def iterate(self, statement: Statement, /, **parameters: Any) -> Iterator[Row]:
        """Return the rows one by one, in bounded memory."""
        ...

    def run(self, statement: Statement, /, **parameters: Any) -> int:
        """Execute a statement; return how many rows it changed."""
        ...

    def run_many(self, statement: Statement, /, parameters: Iterable[Mapping[str, Any]]) -> None:
        """Execute a statement once per set of parameters."""
        ...

    def run_rows(self, statement: Statement, /, names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute a statement once per row, whose values are those of the parameters ``names``, in that order."""
        ...


class Store(Protocol):
    """An open database.

    Attributes:
        clock: returns the current time, Unix milliseconds; by the server's clock where there is a server.
        busy_sec: how long a verb waits for its turn, a lock or a server that comes back, in seconds.
    """

    clock: Callable[[], int]
    busy_sec: float

    @property
    def traits(self) -> Traits:
        """The capabilities of this kind of database."""
        ...

    @property
    def file(self) -> DatabaseFile | None:
        """The database's file and the operations on it; None if the database is not one file."""
        ...

    def check(self) -> None:
        """Refuse work in a forked child or after close; take no lock.

        Raises:
            ForkedRegistry: this is not the process that opened the database.
            InvalidInput: it is closed.
        """
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """Return a context manager for one write transaction: durable on exit, rolled back if the block raises."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """Return a context manager for one read transaction, which sees one snapshot of the database."""
        ...

    def sync(self) -> None:
        """Return once everything committed before the call is durable."""
        ...

    def data_version(self) -> int:
        """Return a number that changes when another process or connection has committed."""
        ...

    def wait_for_change(self, seen: int, timeout_sec: float, *, wake: Flag | None = None) -> int:
        """Wait until ``data_version()`` differs from ``seen``, or for ``timeout_sec``; return the current version.

        It may return early: callers check again and continue to wait.

        Args:
            seen: the version that the caller has looked at.
            timeout_sec: the maximum time to wait, in seconds.
            wake: a flag that another thread sets to end the wait; the wait may set it itself.
        """
        ...

    def stable_events(self) -> StableEvents:
        """Return the position up to which the order of the events is final."""
        ...

    def query(self, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
        """Run an ad-hoc read-only SELECT; return the column names and at most ``limit`` rows."""
        ...

    def describe(self) -> str:
        """Return a description for people: engine, version and place, without a password."""
        ...

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the database; with ``checkpoint`` the last process to close a SQLite database leaves a single file."""
        ...


class DatabaseFile(Protocol):
    """A database that is one file on this host, as identity, doctor and backup use it.

    Attributes:
        path: the file, absolute.
        journal: "wal", or "delete" if other hosts may share the file.
        durability: "full" or "normal".
    """

    path: Path
    journal: str
    durability: str

    @property
    def identity(self) -> tuple[int, int]:
        """The device and inode of the file that was opened."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return the settings in effect, by name."""
        ...

    def integrity(self, *, full: bool) -> list[str]:
        """Return the problems found in the file; empty if it is sound.

        Args:
            full: also compare the indexes with their tables, and check the foreign keys.
        """
        ...

    def checkpoint(self) -> tuple[int, int]:
        """Copy as much of the WAL as possible into the file; return its length and the length copied, in pages."""
        ...
