"""What the verbs need of a database: named statements inside one transaction, and whole transactions.

The SQLite and the PostgreSQL store implement it; the verbs are written once against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

Row = tuple[Any, ...]


class Transaction(Protocol):
    """Named statements in one transaction. Parameters are given by name; rows are tuples."""

    @property
    def now_ms(self) -> int:
        """The transaction's one moment, Unix milliseconds: the database's clock where several hosts write."""
        ...

    def one(self, name: str, /, **parameters: Any) -> Row | None:
        """The first row, or None."""
        ...

    def all(self, name: str, /, **parameters: Any) -> list[Row]:
        """All rows."""
        ...

    def iterate(self, name: str, /, **parameters: Any) -> Iterator[Row]:
        """The rows one by one, in bounded memory."""
        ...

    def run(self, name: str, /, **parameters: Any) -> int:
        """Executes; returns how many rows were changed."""
        ...


class Store(Protocol):
    """An open database."""

    clock: Callable[[], int]

    def learn(self, file: Path) -> None:
        """Adds the named statements of ``file`` to those that transactions know."""
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
        """Waits until ``data_version()`` differs from ``seen`` or the time is over; returns the present one."""
        ...

    def close(self, *, checkpoint: bool = True) -> None: ...
