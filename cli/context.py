"""The root command's options, and the registry or database URL that they select for a command.

Called by almost every command that works on a database; calls ``Registry.open`` and ``jobdb.urls``, both imported only
when needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from .messages import print_warning
from .settings import get_settings

if TYPE_CHECKING:
    from jobdb.registry import Registry
    from jobdb.urls import DatabaseUrl


def warn_of_password(url: str | None) -> None:
    """Print a warning when a database URL given on the command line holds a password."""
    if url is None or not url.startswith("postgres"):
        return
    from jobdb.urls import parse_url

    parsed_url = parse_url(url)
    if str(parsed_url) != parsed_url.text:
        print_warning(
            "a password in a URL on the command line can be read by every process of this machine; put it into "
            "~/.pgpass or PGPASSFILE, or the URL into JOBDB_URL"
        )


def resolve_url(ctx: typer.Context) -> DatabaseUrl:
    """Return the URL of the database for a command that does not open it as a registry.

    Raises:
        UntrustedDatabase: it is the current folder's, and not known to be this user's.
    """
    from jobdb.urls import default_url, parse_url, require_current_folder

    db = get_settings(ctx).db
    parsed_url = parse_url(db or default_url())
    require_current_folder(parsed_url)
    if db is None:
        from jobdb.engines.trust import default_database_path, require_trust

        default = default_database_path()
        if default is not None:
            require_trust(default)
    return parsed_url


@contextmanager
def open_registry(ctx: typer.Context, *, create: bool = False, checkpoint: bool = False) -> Iterator[Registry]:
    """Open the registry that ``--db`` selects for the duration of the block.

    Without ``checkpoint`` the WAL stays for the next command. A command that is run once per event would otherwise,
    being the last to close, copy its few pages into the database, sync that too and delete the WAL, which the next
    command creates again: three more syncs per command. The WAL is as durable, and a long one is copied in any case.
    """
    from jobdb.registry import Registry

    settings = get_settings(ctx)
    registry = Registry.open(settings.db, create=create, busy_timeout_sec=settings.busy_timeout_sec)
    try:
        yield registry
    finally:
        registry.close(checkpoint=checkpoint)
