"""The ``backup`` command, which saves a database into one file.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.operations.backup``, which
writes the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import output
from .context import open_registry
from .formatting import pluralize
from .messages import print_note, print_warning
from .parameters import AsJson


def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to create; it must not exist.")],
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", metavar="N", min=1, help="Add the time to the file's name and keep the newest N backups."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Back up the whole database into one file, while it is in use.

    The backup is a consistent snapshot with everything that was acknowledged before it began. It is verified (opened,
    integrity, references) and synced to disk before it gets its name, and only you can read it. Tokens in it stay
    encrypted: keep the master key somewhere else.

    \b
    Examples:
      jobdb backup /backups/jobs.db
      jobdb backup /backups/jobs.db --keep 14      # /backups/jobs-20260619T093200Z.db, …
    """
    from jobdb.operations.backup import back_up

    with open_registry(ctx) as registry:
        saved = back_up(registry, file, keep=keep)
    for path in saved.in_future:
        print_warning(
            f"{path} is named after a time in the future; it is kept and not counted for --keep. The clock was wrong "
            "when it was created, or is wrong now: rename or remove it"
        )
    if as_json:
        output.print_json(saved.as_dict())
        return
    output.print_line(str(saved.path))
    jobs, events = pluralize(saved.jobs, "job"), pluralize(saved.events, "event")
    print_note(f"saved and verified: {jobs}, {events}, {saved.size_bytes} bytes")
    for path in saved.removed:
        print_note(f"removed {path}")
