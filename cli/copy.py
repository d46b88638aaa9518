"""The ``copy`` command, which copies a registry to another database, possibly of the other engine.

Called by the ``jobdb`` group (``commands.py``), when the command is run; opens both registries and calls
``jobdb.operations.copy``. It never changes the source.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import output
from .context import warn_of_password
from .messages import print_note
from .parameters import AsJson
from .settings import get_settings
from .tables import print_table


def copy(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SRC", help="The registry to copy: a URL or a file name.")],
    target: Annotated[
        str,
        typer.Argument(metavar="DST", help="The database to copy to: created if missing; it must not contain jobs."),
    ],
    same_registry: Annotated[
        bool,
        typer.Option(
            "--same-registry",
            help="Keep the source's identity, with its broker sessions and tickets. Only if the source is never used "
            "again.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a whole registry to another database.

    From SQLite to PostgreSQL, back, or between two databases of the same kind. Everything (jobs, tokens, events,
    subscribers) is copied in one transaction, read back and compared before the transaction is committed. Tokens stay
    encrypted: both databases need the same master key. The source is not changed; stop its writers first, or what they
    write meanwhile is missing in the copy. To brokers and holders of tickets the copy is another registry, unless
    --same-registry is given.

    \b
    Examples:
      jobdb copy sqlite:////var/lib/jobs/jobs.db rehearsal.db
      jobdb copy sqlite:////var/lib/jobs/jobs.db postgresql://db.example/jobs --same-registry   # a permanent move
    """
    from jobdb.operations.copy import copy_registry
    from jobdb.registry import Registry

    for url in (source, target):
        warn_of_password(url)
    busy_timeout_sec = get_settings(ctx).busy_timeout_sec
    with (
        Registry.open(source, busy_timeout_sec=busy_timeout_sec) as source_registry,
        Registry.open(target, create=True, busy_timeout_sec=busy_timeout_sec) as target_registry,
    ):
        report = copy_registry(source_registry, target_registry, same_registry=same_registry)
    if as_json:
        output.print_json(report.as_dict())
        return
    print_table(("TABLE", "ROWS"), [(name, str(count)) for name, count in report.rows.items()])
    print_note(f"copied and compared: {report.source} to {report.target}")
