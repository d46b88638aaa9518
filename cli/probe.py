"""The ``probe`` command, which tests the file locks of a folder before a database is created in it.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls ``jobdb.filesystem.probe``, and opens no
database.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import output
from .parameters import AsJson
from .tables import print_checks


def probe(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder in which a database is to be created.")],
    peer: Annotated[
        str | None,
        typer.Option(
            "--peer",
            metavar="NAME",
            help="Test together with another host that runs this command on this folder; NAME is this host's name.",
        ),
    ] = None,
    timeout_sec: Annotated[
        float | None,
        typer.Option("--timeout-sec", metavar="SEC", help="Give up after SEC seconds. Default: 10, or 60 with --peer."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test whether a folder's file locks are safe for a database.

    On one host, two processes compete for locks; the lock of a killed process must be released, and new and renamed
    files must be visible. With --peer two hosts do the same: run the command on both at the same time, each under
    its own name. On NFS the server must also export the folder with 'sync', which a client cannot check: a warning
    says so. Only the command's own files are touched. Exit code 0 when all checks passed, else 5.

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
    if as_json:
        output.print_json(report.as_dict())
    else:
        checks: list[tuple[str, str, str, str | None]] = [
            ("ok" if check.ok else "fail", check.name, check.detail, None if check.ok else check.advice)
            for check in report.checks
        ]
        print_checks(checks + [("warn", "export-sync", warning, None) for warning in report.warnings])
        output.print_line(report.verdict)
    if not report.ok:
        raise typer.Exit(5)
