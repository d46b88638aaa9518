"""The ``doctor`` command, which checks a database and its environment.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.doctor``. It opens no registry
itself: the database may be one that cannot be opened.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import output
from .context import resolve_url
from .parameters import AsJson
from .tables import print_checks


def doctor(
    ctx: typer.Context,
    full: Annotated[
        bool, typer.Option("--full", help="Read every page and check every reference; takes time for a large database.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Correct times that were recorded while a clock was ahead, by this host's clock."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check the database and its environment.

    One line per check: ok, warn or fail, the check's name, what was found, and after an arrow the command that fixes
    it; in a pipe the line is tab-separated. Changes nothing unless --fix is given. Exit code 0 when no check failed
    (warnings are not failures), else 5.

    \b
    Examples:
      jobdb doctor
      jobdb doctor --full --json
      jobdb doctor --fix                       # after a clock was ahead, once it is correct again
    """
    from jobdb.doctor import diagnose

    report = diagnose(resolve_url(ctx), full=full, fix=fix)
    if as_json:
        output.print_json(report.as_dict())
    else:
        print_checks(
            (finding.level, finding.check, finding.message, finding.fix_command) for finding in report.findings
        )
    if not report.ok:
        raise typer.Exit(5)
