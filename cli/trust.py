"""Trusting a database that a folder brought along: trust."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import json_line, note
from .parameters import Json


def trust(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="The database or its folder; the current folder's if left out."),
    ] = None,
    json: Json = False,
) -> None:
    """Trust the database of a folder that came from elsewhere.

    Without --db and JOBDB_URL a command works on .jobdb/jobs.db in the current folder. One that you did not make,
    such as one that came with a checkout, is refused there until you trust it: its jobs are instructions to your
    agents. A file that is put in its place later is refused again.

    \b
    Examples:
      jobdb trust
      jobdb trust ~/project
    """
    from jobdb.engines.trust import trust as trust_database

    file = path or Path()
    if file.is_dir():
        file = file / "jobs.db" if file.name == ".jobdb" else file / ".jobdb" / "jobs.db"
    trusted = trust_database(file)
    if json:
        json_line({"path": str(trusted), "trusted": True})
        return
    note(f"{trusted} is trusted now")
