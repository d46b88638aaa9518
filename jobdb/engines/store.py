"""What the verbs need of a database: named statements inside one transaction, and whole transactions.

The SQLite and the PostgreSQL store implement it; the verbs are written once against it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from .statements import Statement

Row = tuple[Any, ...]


class Transaction(Protocol):
    """Named statements in one transaction. Parameters are given by name; rows are tuples."""

    @property
    def now_ms(self) -> int:
        """The transaction's one moment, Unix milliseconds: the database's clock where several hosts write."""
        ...

    def lock_jobs(self, job_ids: Iterable[str]) -> None:
        """Keeps other writers off these jobs until the transaction ends; called before the jobs are looked at.

        Where the transaction has the whole database to itself there is nothing to do. Elsewhere the jobs are locked
        in one order whatever the order given, so that two transactions never wait for each other.
        """
        ...

    def one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        """The first row, or None."""
        ...

    def all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        """All rows."""
        ...

    def iterate(self, statement: Statement, /, **parameters: Any) -> Iterator[Row]:
        """The rows one by one, in bounded memory."""
        ...

    def run(self, statement: Statement, /, **parameters: Any) -> int:
        """Executes; returns how many rows were changed."""
        ...

    def run_many(self, statement: Statement, /, parameters: Iterable[Mapping[str, Any]]) -> None:
        """Executes once for each set of parameters."""
        ...

    def run_rows(self, statement: Statement, /, names: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        """Executes once for each row, whose values are those of the parameters ``names``, in that order."""
        ...


class Store(Protocol):
    """An open database."""

    clock: Callable[[], int]
    supports_presigning: bool
    """Whether an event may be signed before its transaction begins: by the clock of this process, not a server's."""

    def check(self) -> None:
        """Refuses work in a forked child or after close; takes no lock."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """One immediate transaction, durable when the block has been left; rolled back when it raised."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """One read transaction."""
        ...

    def sync(self) -> None:
        """Returns when everything committed before the call is durable."""
        ...

    def data_version(self) -> int:
        """A number that changes when somebody else has committed."""
        ...

    def wait_for_change(self, seen: int, timeout_sec: float) -> int:
        """Waits until ``data_version()`` differs from ``seen`` or the time is over; returns the present one.

        It may return early: callers look again and go on waiting.
        """
        ...

    def stable_event_id(self) -> int:
        """A number up to which no event can appear any more that a transaction begun now would not see.

        Where writers run side by side, an event can become visible after one with a higher number.
        """
        ...

    def query(self, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
        """Runs one read-only SELECT of a person's; returns the columns' names and at most ``limit`` rows."""
        ...

    def describe(self) -> str:
        """What this is, for a person: engine, version, place; no password."""
        ...

    def close(self, *, checkpoint: bool = True) -> None: ...
