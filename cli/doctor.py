"""The commands that tell whether all is well: doctor for the database, probe for a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .context import resolve_url
from .parameters import Json

if TYPE_CHECKING:
    from jobdb.doctor import Finding

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    ctx: typer.Context,
    full: Annotated[
        bool, typer.Option("--full", help="Read every page and follow every reference; takes time with the size.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Put right what was recorded while a clock was ahead, by this host's clock of now."),
    ] = False,
    json: Json = False,
) -> None:
    """Check the database and all around it.

    A line for each check: ok, warn or fail, what was found, and after an arrow the command that fixes it.
    Changes nothing, unless --fix is given. Exit code 0 when nothing failed (warnings are no failure), else 5.

    \b
    Examples:
      jobdb doctor
      jobdb doctor --full --json
      jobdb doctor --fix                       # after a clock was ahead, and is right again
    """
    from jobdb.doctor import diagnose

    report = diagnose(resolve_url(ctx), full=full, fix=fix)
    if json:
        output.json_line(report.as_dict())
    else:
        _draw(report.findings)
    if not report.ok:
        raise typer.Exit(5)


def _draw(findings: list[Finding]) -> None:
    _print_checks([(finding.level, finding.check, finding.message, finding.fix_command) for finding in findings])


def _print_checks(rows: list[tuple[str, str, str, str | None]]) -> None:
    """A line for each check: ok, warn or fail, its name, what was found, and what fixes it."""
    if not output.on_terminal():
        for row in rows:
            output.tsv_line(*row)
        return
    from rich.table import Table
    from rich.text import Text

    from jobdb.system.terminal import sanitize

    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for level, check, message, fix_command in rows:
        said = Text(sanitize(message))
        if fix_command:
            said.append(f"\n→ {sanitize(fix_command)}", "cyan")
        grid.add_row(Text(level, _STYLES[level]), check, said)
    output.console().print(grid)


def probe(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that is to hold a database.")],
    peer: Annotated[
        str | None,
        typer.Option(
            "--peer", metavar="NAME", help="Meet the same command of another host in this folder; give each a name."
        ),
    ] = None,
    timeout_sec: Annotated[
        float | None, typer.Option("--timeout-sec", metavar="SEC", help="The most that it may take.")
    ] = None,
    json: Json = False,
) -> None:
    """Prove that a folder's locks exclude, before a database is trusted to it.

    On one host: two processes compete for locks, a killed holder's lock must go, new and renamed files must
    be seen. With --peer the same across two hosts: run it on both at the same time, each with a name of its
    own. On NFS the server's export must be sync as well, which only the server can tell: a warning says so.
    Touches only files of its own. Exit code 0 when all passed, else 5.

    \b
    Examples:
      jobdb probe /srv/shared
      jobdb probe /srv/shared --peer north      # on host north
      jobdb probe /srv/shared --peer south      # on host south, at the same time
    """
    from jobdb.filesystem.probe.local import probe_folder
    from jobdb.filesystem.probe.peer import probe_peer

    if peer is None:
        report = probe_folder(folder, timeout_sec=timeout_sec or 10.0)
    else:
        report = probe_peer(folder, name=peer, timeout_sec=timeout_sec or 60.0)
    if json:
        output.json_line(report.as_dict())
    else:
        _print_checks(
            [
                ("ok" if check.ok else "fail", check.name, check.detail, None if check.ok else check.advice)
                for check in report.checks
            ]
            + [("warn", "export-sync", warning, None) for warning in report.warnings]
        )
        output.line(report.verdict)
    if not report.ok:
        raise typer.Exit(5)
