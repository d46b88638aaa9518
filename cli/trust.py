"""The ``trust`` command, which trusts a database that came from elsewhere.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.engines.trust``, and opens no
registry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .messages import print_note
from .output import print_json
from .parameters import AsJson


def trust(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="The database or its folder. Default: that of the current folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Trust the database in a folder that came from elsewhere.

    Without --db and JOBDB_URL a command works on .jobdb/jobs.db in the current folder. A database there that you did
    not create, for example one that came with a checkout, is refused until you trust it: its jobs are instructions to
    your agents. If the file is replaced later, the new one is refused again.

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
    if as_json:
        print_json({"path": str(trusted), "trusted": True})
        return
    print_note(f"{trusted} is now trusted")
