"""The ``identity`` command, which shows a registry's identity and confirms that the database was moved or copied.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.engines.identity``. Jobs and
tokens stay unchanged.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .context import open_registry
from .messages import print_hint
from .parameters import AsJson
from .tables import print_record


def identity(
    ctx: typer.Context,
    moved: Annotated[
        bool, typer.Option("--moved", help="The database was moved here: keep its identity. The original must be gone.")
    ] = False,
    copy: Annotated[
        bool,
        typer.Option("--copy", help="The database is a copy: give it a new identity. The original stays in use."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the registry's identity; confirm that it was moved or copied.

    Brokers keep messages for a registry under its identity, and tickets name it. 'restore' and 'copy' give the
    resulting database a new identity. A file that was copied by hand (cp, rsync, a cloned machine) still has the
    original's identity. The file's changed location reveals this, and the database connects to no broker until you
    confirm with --moved or --copy which of the two it is. Jobs and their tokens stay unchanged either way; a copy
    whose jobs name the original's broker sends its events there, signed with the same tokens. Exit code 1 when the
    database is not where it was recorded to be.

    \b
    Examples:
      jobdb identity
      jobdb --db /srv/new/jobs.db identity --moved
      jobdb --db /srv/rehearsal/jobs.db identity --copy
    """
    from jobdb.engines.identity import accept_place, assign_new_identity, read_identity

    if moved and copy:
        raise InvalidInput("--moved keeps the identity and --copy creates a new one; give one of them")
    with open_registry(ctx) as registry:
        store = registry.store
        shown = accept_place(store) if moved else assign_new_identity(store) if copy else read_identity(store)
    if as_json:
        output.print_json(shown.as_dict())
    else:
        print_record({"registry_id": shown.registry_id, "place": shown.current.get("path"), "problem": shown.problem})
    if shown.problem is not None:
        print_hint("next: jobdb identity --moved, or jobdb identity --copy", ctx)
        raise typer.Exit(1)
