"""What the options before the command say, and the registry that a command works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from jobdb.registry import Registry
    from jobdb.urls import DatabaseUrl


class Settings:
    """The options before the command.

    Attributes:
        db: the database's URL; None: the environment's or the default.
        busy_timeout_sec: how long to wait for other writers, in seconds.
    """

    __slots__ = ("busy_timeout_sec", "db")

    def __init__(self, *, db: str | None, busy_timeout_sec: float) -> None:
        self.db = db
        self.busy_timeout_sec = busy_timeout_sec


def warn_of_password(url: str | None) -> None:
    """Says it when a database URL of the command line holds a password."""
    if url is None or not url.startswith("postgres"):
        return
    from jobdb.urls import parse_url

    parsed_url = parse_url(url)
    if str(parsed_url) != parsed_url.text:
        from .output import warn

        warn(
            "a password in a URL on the command line can be read by every process of this machine; put it into "
            "~/.pgpass or PGPASSFILE, or the URL into JOBDB_URL"
        )


def get_settings(ctx: typer.Context) -> Settings:
    """The settings that the root command noted."""
    settings = ctx.obj
    assert isinstance(settings, Settings)
    return settings


def resolve_url(ctx: typer.Context, *, found: bool = True) -> DatabaseUrl:
    """Where the registry is that a command works on without opening it as a registry.

    Args:
        ctx: the command's context.
        found: what the current folder brings must be trusted; False where it is only replaced.
    """
    from jobdb.urls import default_url, parse_url, require_current_folder

    db = get_settings(ctx).db
    parsed_url = parse_url(db or default_url())
    require_current_folder(parsed_url)
    if db is None and found:
        from jobdb.engines.trust import default_database_path, require_trust

        default = default_database_path()
        if default is not None:
            require_trust(default)
    return parsed_url


@contextmanager
def open_registry(ctx: typer.Context, *, create: bool = False, checkpoint: bool = False) -> Iterator[Registry]:
    """The registry that ``--db`` names, open while the block runs.

    Without ``checkpoint`` the WAL stays for the next command. A command that is run once an event would otherwise,
    being the last to close, copy its few pages into the database, sync that too and delete the WAL, which the next
    command makes anew: three more syncs a command. The WAL is as durable, and once it is long it is copied after all.
    """
    from jobdb.registry import Registry

    settings = get_settings(ctx)
    registry = Registry.open(settings.db, create=create, busy_timeout_sec=settings.busy_timeout_sec)
    try:
        yield registry
    finally:
        registry.close(checkpoint=checkpoint)
