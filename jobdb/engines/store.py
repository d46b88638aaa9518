"""The seam: what the verbs and the tools need of a database.

A :class:`Store` runs named statements in transactions. The SQLite and the PostgreSQL store implement it, and the verbs
are written once against it. Nobody asks a store what kind it is: what a kind can do it declares in its ``Traits``, and
a database that is one file answers for it through :class:`DatabaseFile`. River's drivers are asked likewise
(``riverdriver``, ``SupportsListener``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .statements import Statement
    from .traits import StableEvents, Traits

Row = tuple[Any, ...]


class Transaction(Protocol):
    """Named statements in one transaction. Parameters are given by name; rows are tuples."""

    @property
    def now_ms(self) -> int:
        """The transaction's one moment, Unix milliseconds: the database's clock where several hosts write."""
        ...

    def lock_jobs(self, job_ids: Iterable[str]) -> None:
        """Keep other writers off these jobs until the transaction ends; called before the jobs are looked at.

        Where the transaction has the whole database to itself there is nothing to do. Elsewhere the jobs are locked
        in one order whatever the order given, so that two transactions never wait for each other.
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
        """What this kind of database can do."""
        ...

    @property
    def file(self) -> DatabaseFile | None:
        """The database's file, and what can be asked of it; None where the database is not one file."""
        ...

    def check(self) -> None:
        """Refuse work in a forked child or after close; take no lock.

        Raises:
            ForkedRegistry: this is not the process that opened the database.
            InvalidInput: it is closed.
        """
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """Return the block of one immediate transaction: durable when it was left, rolled back when it raised."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """Return the block of one read transaction, which sees the state of one moment."""
        ...

    def sync(self) -> None:
        """Return when everything committed before the call is durable."""
        ...

    def data_version(self) -> int:
        """Return a number that changes when somebody else has committed."""
        ...

    def wait_for_change(self, seen: int, timeout_sec: float) -> int:
        """Wait until ``data_version()`` differs from ``seen`` or the time is over; return the current version.

        It may return early: callers look again and go on waiting.
        """
        ...

    def stable_events(self) -> StableEvents:
        """Return up to where the order of the events is final."""
        ...

    def query(self, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
        """Run one read-only SELECT of a person's; return the columns' names and at most ``limit`` rows."""
        ...

    def describe(self) -> str:
        """Return engine, version and place for a person; no password."""
        ...

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the database; with ``checkpoint`` the last process out leaves one file, where that applies."""
        ...


class DatabaseFile(Protocol):
    """A database that is one file of this host's: what identity, doctor and backup ask of it.

    Attributes:
        path: the file, absolute.
        journal: "wal", or "delete" where other hosts share the file.
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
        """Return the settings that are in force, by name."""
        ...

    def integrity(self, *, full: bool) -> list[str]:
        """Return what is wrong with the file; empty when it is sound.

        Args:
            full: compare the indexes with their tables, and follow the foreign keys too.
        """
        ...

    def checkpoint(self) -> tuple[int, int]:
        """Copy what can be copied of the WAL into the file; return the WAL's length and what is copied, in pages."""
        ...
