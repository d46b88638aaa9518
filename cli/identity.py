"""The command that tells which registry a database is, and takes a person's word on whether it was moved or copied."""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import InvalidInput

from . import output
from .context import open_registry
from .parameters import Json


def identity(
    ctx: typer.Context,
    moved: Annotated[
        bool, typer.Option("--moved", help="It was moved here and keeps its identity; the original is gone.")
    ] = False,
    copy: Annotated[
        bool, typer.Option("--copy", help="It is a copy and gets an identity of its own; the original goes on.")
    ] = False,
    json: Json = False,
) -> None:
    """Show which registry this is; say that it was moved, or copied.

    Brokers keep messages for a registry under its identity, and tickets name it. 'restore' and 'copy' give
    what they make an identity of its own. A file that was copied by hand (cp, rsync, a cloned machine) still
    has that of the original: it is noticed by its place, and it connects to no broker until you say which it
    is. Jobs and their tokens stay as they are either way; a copy whose jobs name the original's broker sends
    its events there, signed with the same tokens. Exit code 1 when the place is not the one that was noted.

    \b
    Examples:
      jobdb identity
      jobdb --db /srv/new/jobs.db identity --moved
      jobdb --db /srv/rehearsal/jobs.db identity --copy
    """
    from jobdb.engines.identity import accept_place, assign_new_identity, read_identity

    if moved and copy:
        raise InvalidInput("--moved keeps the identity and --copy makes another; give one of them")
    with open_registry(ctx) as registry:
        store = registry.store
        found = accept_place(store) if moved else assign_new_identity(store) if copy else read_identity(store)
    if json:
        output.json_line(found.as_dict())
    else:
        output.record({"registry_id": found.registry_id, "place": found.current.get("path"), "problem": found.problem})
    if found.problem is not None:
        output.hint("next: jobdb identity --moved, or jobdb identity --copy")
        raise typer.Exit(1)
