"""The commands that create a database and upgrade its schema: init, migrate.

Called by the ``jobdb`` group (``commands.py``), when one of them is run; ``init`` opens the registry, ``migrate`` calls
the engine's migrations without opening one.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import DatabaseMissing, InvalidInput

from .context import open_registry, resolve_url
from .messages import print_hint, print_note
from .output import print_json
from .parameters import AsJson
from .settings import get_settings


def init(
    ctx: typer.Context,
    shared: Annotated[
        bool | None,
        typer.Option(
            "--shared/--no-shared",
            help="Mark the database as used by several hosts, or remove the mark: a shared database never uses WAL.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a database.

    --db selects the place; the default is .jobdb/jobs.db, in a folder that only you can access. An existing database is
    left unchanged, except that --shared marks it: do this on the host that owns the disk, while no process has the
    database open.

    \b
    Examples:
      jobdb init
      jobdb --db sqlite:////var/lib/jobs/jobs.db init
      jobdb --db sqlite:////srv/shared/jobs.db init --shared
    """
    url = resolve_url(ctx)
    if shared is not None and url.path is None:
        raise InvalidInput("--shared is for SQLite files; a PostgreSQL registry can be used by several hosts as it is")
    exists = url.path is not None and url.path.exists() and url.path.stat().st_size > 0
    if not exists or shared is None:
        with open_registry(ctx, create=True, checkpoint=True):
            pass
    if shared is not None and url.path is not None:
        from jobdb.engines.sqlite.shared_mark import set_shared

        set_shared(url.path, shared, busy_sec=min(get_settings(ctx).busy_timeout_sec, 5.0))
    if as_json:
        print_json({"url": str(url), "created": not exists, "shared": shared})
        return
    marked = "" if shared is None else ", marked as shared" if shared else ", not marked as shared"
    print_note(f"{url} exists already{marked}" if exists else f"created {url}{marked}")
    print_hint("next: jobdb register --agent NAME 'what is to be done', or jobdb import DIR", ctx)


def migrate(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Upgrade a database to the current schema.

    Either all steps succeed or nothing changes, and a backup of a SQLite file is kept beside it. Stop the workers, the
    relay and the subscribers first: no other process may have the database open.

    \b
    Example:
      jobdb --db /var/lib/jobs/jobs.db migrate
    """
    from jobdb.schema import SCHEMA_VERSION

    settings = get_settings(ctx)
    url = resolve_url(ctx)
    backup = None
    if url.path is None:
        from jobdb.engines.open import require_postgresql_driver

        require_postgresql_driver(url)
        from jobdb.engines.postgresql.migrations import migrate_postgresql

        migrate_postgresql(url.text)
    else:
        from jobdb.engines.sqlite.migrations import migrate as run_migrations
        from jobdb.engines.sqlite.placement_check import check_placement

        if not url.path.exists():
            raise DatabaseMissing(f"there is no database at {url.path}; create one with 'jobdb --db {url.path} init'")
        check_placement(url.path)
        backup = run_migrations(url.path, busy_sec=settings.busy_timeout_sec)
    if as_json:
        print_json({"url": str(url), "schema_version": SCHEMA_VERSION, "backup": str(backup) if backup else None})
    elif backup:
        print_note(f"{url} is now at schema version {SCHEMA_VERSION}; the backup is {backup}")
    else:
        print_note(f"{url} is at schema version {SCHEMA_VERSION}")
