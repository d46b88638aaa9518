"""The base of :class:`Registry`: the engine behind it, its URL, and how it is closed.

The verbs are classes on this base, one per subject: jobs, claims, events, subscribers. A verb checks its arguments and
asks the engine, which runs one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from ..engines.sql.engine import Engine
    from ..urls import DatabaseUrl


class RegistryBase:
    """An open database, closed at the end of a ``with`` block."""

    def __init__(self, engine: Engine, url: DatabaseUrl) -> None:
        self.engine = engine
        self.store = engine.store
        self.url = url

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the database. A ``with`` block does so at its end.

        Args:
            checkpoint: True to let the last process out copy SQLite's WAL into the database, which leaves one file.

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
