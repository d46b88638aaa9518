"""The commands that make a database and bring it to the present schema: init, migrate."""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import DatabaseMissing, InvalidInput, Unavailable

from .context import get_settings, open_registry, resolve_url
from .output import hint, json_line, note
from .parameters import Json


def init(
    ctx: typer.Context,
    shared: Annotated[
        bool | None,
        typer.Option(
            "--shared/--no-shared",
            help="Mark it as used by several hosts (or take the mark off): it stays in a rollback journal everywhere.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a database.

    It is made where --db says, in a folder of its own that only you may enter. A database that is there
    already is left as it is, but for the mark that --shared puts on: run that on the host that owns the disk,
    while nobody has the database open.

    \b
    Examples:
      jobdb init
      jobdb --db sqlite:////var/lib/jobs/jobs.db init
      jobdb --db sqlite:////srv/shared/jobs.db init --shared
    """
    url = resolve_url(ctx)
    if shared is not None and url.path is None:
        raise InvalidInput("--shared is for SQLite files; every host may use a PostgreSQL registry as it is")
    exists = url.path is not None and url.path.exists() and url.path.stat().st_size > 0
    if not exists or shared is None:
        with open_registry(ctx, create=True, checkpoint=True):
            pass
    if shared is not None and url.path is not None:
        from jobdb.engines.sqlite.shared_mark import set_shared

        set_shared(url.path, shared, busy_sec=min(get_settings(ctx).busy_timeout_sec, 5.0))
    if json:
        json_line({"url": str(url), "created": not exists, "shared": shared})
        return
    marked = "" if shared is None else ", marked as shared" if shared else ", not marked as shared"
    note(f"{url} is there already{marked}" if exists else f"made {url}{marked}")
    hint("next: jobdb register --agent NAME 'what is to be done', or jobdb import DIR")


def migrate(ctx: typer.Context, json: Json = False) -> None:
    """Bring an older database to the present schema.

    All steps are made or none, and a backup of a SQLite file is kept beside it. Stop the workers, the relay and
    the subscribers first: nobody else may have it open.

    \b
    Example:
      jobdb --db /var/lib/jobs/jobs.db migrate
    """
    from jobdb.schema import SCHEMA_VERSION

    settings = get_settings(ctx)
    url = resolve_url(ctx)
    backup = None
    if url.path is None:
        try:
            from jobdb.engines.postgresql.migrations import migrate_postgresql
        except ImportError as error:
            raise Unavailable(
                f"{url} needs the PostgreSQL driver, which is not installed: pip install 'jobdb[postgresql]'"
            ) from error
        migrate_postgresql(url.text)
    else:
        from jobdb.engines.sqlite.migrations import migrate as run_migrations
        from jobdb.engines.sqlite.placement_check import check_placement

        if not url.path.exists():
            raise DatabaseMissing(f"there is no database at {url.path}; make one with 'jobdb --db {url.path} init'")
        check_placement(url.path)
        backup = run_migrations(url.path, busy_sec=settings.busy_timeout_sec)
    if json:
        json_line({"url": str(url), "schema_version": SCHEMA_VERSION, "backup": str(backup) if backup else None})
    elif backup:
        note(f"{url} is at schema version {SCHEMA_VERSION} now; the backup is {backup}")
    else:
        note(f"{url} is at schema version {SCHEMA_VERSION}")
