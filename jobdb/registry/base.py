"""The base class of :class:`Registry`: its engine, its URL, and closing it.

Used by the classes with the verbs, its subclasses; calls nothing but the engine's ``close``. The verbs are methods of
its subclasses, one per subject: jobs, claims, events, subscribers. A verb checks its arguments and calls the engine,
which runs one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from ..engines.sql.engine import Engine
    from ..urls import DatabaseUrl


class RegistryBase:
    """An open database; a context manager that closes it."""

    def __init__(self, engine: Engine, url: DatabaseUrl) -> None:
        self.engine = engine
        self.store = engine.store
        self.url = url

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the database, as the end of a ``with`` block does.

        Args:
            checkpoint: True to copy SQLite's WAL into the database if no other process has it open, which leaves a
                single file.

        Example:
            >>> registry.close()
        """
        self.engine.close(checkpoint=checkpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Registry {self.url}>"
