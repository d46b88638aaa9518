"""The commands that save a database and put a saved one back: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import output
from .parameters import Json
from .settings import registry_of, settings_of


def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make; it must not be there.")],
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", metavar="N", min=1, help="Put the moment into the file's name and keep the newest N of them."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Save the whole database into one file, while it is in use.

    The copy is one moment's state and holds everything that was acknowledged before it began. It is verified
    (opened, integrity, references) and synced before it gets its name, and only you may read it. Tokens in it
    stay sealed: keep the master key somewhere else.

    \b
    Examples:
      jobdb backup /backups/jobs.db
      jobdb backup /backups/jobs.db --keep 14      # /backups/jobs-20260619T093200Z.db, …
    """
    from jobdb.backup import back_up

    with registry_of(ctx) as registry:
        saved = back_up(registry, file, keep=keep)
    if json:
        output.json_line(saved.as_dict())
        return
    output.line(str(saved.path))
    output.note(f"saved and verified: {saved.jobs} jobs, {saved.events} events, {saved.size_bytes} bytes")
    for path in saved.removed:
        output.note(f"removed {path}")


def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="BACKUP", help="The saved file; it stays.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Put a saved database in the place of the present one, which is kept.

    The backup is verified first. Refused while anybody has the present database open (exit code 4). What was
    there is renamed, not deleted; its new name is printed.

    \b
    Example:
      jobdb --db /var/lib/jobs/jobs.db restore /backups/jobs-20260619T093200Z.db
    """
    from jobdb.backup import restore as put_back
    from jobdb.backup import verify
    from jobdb.errors import InvalidInput
    from jobdb.urls import default_url, parse_url

    settings = settings_of(ctx)
    place = parse_url(settings.db or default_url())
    if not file.is_file():
        found = "is no file" if file.exists() else "is not there"
        raise InvalidInput(f"{file} {found}; name a file that 'jobdb backup' has made")
    jobs, events = verify(file)
    there = place.path is not None and place.path.exists()
    output.note(
        f"{file} holds {jobs} jobs and {events} events; "
        + (f"the database at {place.path} will be kept under another name" if there else f"nothing is at {place} yet")
    )
    if there and not yes:
        typer.confirm("Replace it?", abort=True, err=True)
    kept = put_back(file, place, busy_sec=min(settings.busy_timeout_sec, 5.0))
    if place.path is not None:
        from jobdb.trust import note_trust

        note_trust(place.path)
    if json:
        output.json_line({"url": str(place), "kept": str(kept) if kept else None, "jobs": jobs, "events": events})
        return
    output.note(f"restored {place}" + (f"; what was there is now {kept}" if kept else ""))
    output.hint("next: jobdb doctor --full")
