"""The commands that import and export the old registry of JSON files: import, export.

Called by the ``jobdb`` group (``commands.py``), when one of them is run; calls ``jobdb.legacy``, which knows the old
format.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobdb.errors import InvalidInput

from . import output
from .context import open_registry
from .formatting import pluralize
from .messages import print_hint, print_note, show_progress
from .parameters import AsJson
from .tables import print_table

if TYPE_CHECKING:
    from jobdb.legacy.report import ImportReport, Report

LockTimeout = Annotated[
    float,
    typer.Option("--lock-timeout", metavar="SEC", help="Seconds to wait for the old registry's lock."),
]

_STYLES = {"imported": "green", "exported": "green", "updated": "green", "damaged": "bold red", "skipped": "yellow"}
_QUIET_OUTCOMES = ("imported", "exported", "unchanged")
_QUIET_WARNINGS = (None, "unsigned")
_MAX_NAMED_JOBS = 10


def import_(
    ctx: typer.Context,
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="The workspace, or its folder of records (.mam/jobs).")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; report what would be done.")] = False,
    allow_damaged: Annotated[
        bool, typer.Option("--allow-damaged", help="Exit with 0 even if files are damaged.")
    ] = False,
    lock_timeout: LockTimeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Import a registry of JSON files.

    Can run while the old registry is in use, under its lock. Everything is compared field by field and written in one
    transaction; the files are not changed. Importing again updates what has changed since then, and never replaces
    newer data with older. A file that cannot be read is reported with the reason, and makes the exit code 1.

    A job that required signatures still requires them. If its token is missing or was revoked, or if it has none in an
    environment that requires tokens, it accepts no events until 'jobdb token rotate JOB'. Such jobs, tokens of less
    than 128 bits and jobs whose events need no signature are reported; the exit code stays 0.

    Prints one line per file with tab-separated outcome, file, job, events and reason; on a terminal only files that
    need attention. With --json: one object per file, and a last one with the member 'summary'.

    \b
    Examples:
      jobdb import ~/workspace --dry-run
      jobdb import ~/workspace/.mam/jobs
    """
    from jobdb.legacy import import_registry

    with open_registry(ctx, checkpoint=True) as registry:
        report = import_registry(
            registry,
            directory,
            dry_run=dry_run,
            allow_damaged=allow_damaged,
            lock_timeout_sec=lock_timeout,
            progress=show_progress("records"),
        )
    _print_report(report, as_json=as_json, more=report.trust())
    _print_trust_warnings(report)
    if dry_run:
        print_note("dry run: nothing was written")
    if not report.ok:
        print_note("some files are damaged and were skipped; repair them and import again, or pass --allow-damaged")
    if not dry_run:
        print_hint("next: jobdb list", ctx)
    if not report.ok:
        raise typer.Exit(1)


def export(
    ctx: typer.Context,
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]", help="A workspace or a folder of records; created if missing.", show_default=False
        ),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="FORMAT", help="Write ndjson or csv to stdout instead of a registry."),
    ] = None,
    with_secrets: Annotated[
        bool,
        typer.Option(
            "--with-secrets",
            help="Also write tokens and broker passwords, unencrypted: whoever can read the output has them.",
        ),
    ] = False,
    lock_timeout: LockTimeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Export jobs as JSON files, NDJSON or CSV.

    With DIR: a registry that the old scripts can use, with a record and the logs of each job, written under the old
    registry's lock. A job whose files in DIR are newer is skipped with the reason, and makes the exit code 1. The old
    scripts sign with the tokens in the files: they need --with-secrets.

    With --format the jobs are written to stdout for other programs: ndjson has one object per job with its events, csv
    has one row per job.

    \b
    Examples:
      jobdb export ~/workspace --with-secrets
      jobdb export --format csv > jobs.csv
    """
    if (directory is None) == (output_format is None):
        raise InvalidInput("give either a folder or --format ndjson or csv")
    if output_format is not None:
        import sys

        from jobdb.legacy import write_lines

        with open_registry(ctx) as registry:
            write_lines(registry, sys.stdout, output_format, with_secrets=with_secrets)
        return
    assert directory is not None
    from jobdb.legacy import export_registry

    with open_registry(ctx) as registry:
        report = export_registry(
            registry,
            directory,
            with_secrets=with_secrets,
            lock_timeout_sec=lock_timeout,
            progress=show_progress("jobs"),
        )
    _print_report(report, as_json=as_json)
    if report.secrets_left_out:
        print_note(
            f"the secrets of {pluralize(report.secrets_left_out, 'job')} were left out; --with-secrets writes them. "
            "After an import of this folder these jobs still require signatures, and accept no events until their "
            "token is rotated"
        )
    if not report.ok:
        raise typer.Exit(1)


def _print_trust_warnings(report: ImportReport) -> None:
    """Print how many jobs were imported with less than full trust, and which."""
    from jobdb.legacy.format.damage import TrustWarning

    messages = {
        TrustWarning.NO_USABLE_TOKEN: "without a usable token: no event is accepted until 'jobdb token rotate JOB'",
        TrustWarning.WEAK_TOKEN: "with a token of less than 128 bits: 'jobdb token rotate JOB' gives a stronger one",
        TrustWarning.UNSIGNED: "without a token: events need no signature",
    }
    for warning, message in messages.items():
        count = report.warnings[warning]
        if count:
            rows = (row.job_id for row in report.rows() if row.warning == warning and row.job_id)
            names = ", ".join(islice(rows, _MAX_NAMED_JOBS))
            more = f" and {count - _MAX_NAMED_JOBS} more" if count > _MAX_NAMED_JOBS else ""
            print_note(f"{pluralize(count, 'job')} {message}: {names}{more}")
    if report.without_subscribers:
        print_note(
            f"{pluralize(report.without_subscribers, 'job')} without any subscriber's state: a subscriber that has "
            "already handled their events elsewhere must start here with '--start now', or it accepts them again"
        )


def _print_report(report: Report, *, as_json: bool, more: dict[str, Any] | None = None) -> None:
    """Print one row per file, and the totals."""
    summary = report.as_dict() | (more or {})
    if as_json:
        for row in report.rows():
            output.print_json(row.as_dict())
        output.print_json({"summary": summary})
        return
    only_notable = output.on_terminal()
    rows = [
        (
            (row.outcome.value, _STYLES.get(row.outcome.value, "")),
            row.file,
            row.job_id or "-",
            str(row.events),
            row.reason,
        )
        for row in report.rows()
        if not (only_notable and row.outcome.value in _QUIET_OUTCOMES and row.warning in _QUIET_WARNINGS)
    ]
    if rows:
        print_table(("OUTCOME", "FILE", "JOB", "EVENTS", "REASON"), rows, wide="REASON", fold=True)
    counts = ", ".join(f"{count} {outcome.value}" for outcome, count in report.counts.items() if count)
    print_note(f"{report.folder}: {counts or 'no files'}; {pluralize(report.events, 'event')}")
