"""The root command's options, as commands and their messages read them.

Used by ``app``, which stores them, and by ``context``, ``messages`` and the commands that read them; imports nothing
from jobdb.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def shell_quote(text: str) -> str:
    """Return ``text`` as one word of a suggested command: people paste those, and a database may hold any name."""
    if text.isascii() and text.isalnum():
        return text  # every generated job id: the common case needs no further import
    import shlex

    return shlex.quote(text)


class Settings:
    """The root command's options.

    Attributes:
        db: the database's URL; None: that of the environment, or the default.
        busy_timeout_sec: how long to wait for other writers, in seconds.
    """

    __slots__ = ("busy_timeout_sec", "db")

    def __init__(self, *, db: str | None, busy_timeout_sec: float) -> None:
        self.db = db
        self.busy_timeout_sec = busy_timeout_sec

    def suggested_command(self) -> str:
        """Return how a suggested command begins so that it works on the same database."""
        if self.db is None or ("://" in self.db and not self.db.startswith("sqlite:")):
            return "jobdb"  # the default database, or an address that may hold a password
        return f"jobdb --db {shell_quote(self.db)}"


def get_settings(ctx: typer.Context) -> Settings:
    """Return the settings that the root command stored."""
    settings = ctx.obj
    assert isinstance(settings, Settings)
    return settings
