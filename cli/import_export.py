"""The commands between the old registry of JSON files and the database: import, export."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobdb.errors import InvalidInput

from . import output
from .context import get_settings, open_registry, warn_of_password
from .parameters import Json

if TYPE_CHECKING:
    from jobdb.legacy.report import ImportReport, Report

LockTimeout = Annotated[
    float,
    typer.Option("--lock-timeout", metavar="SEC", help="How long to wait for the old registry's lock."),
]

_STYLES = {"imported": "green", "exported": "green", "updated": "green", "damaged": "bold red", "skipped": "yellow"}
_QUIET_OUTCOMES = ("imported", "exported", "unchanged")
_QUIET_WARNINGS = (None, "unsigned")
_MAX_NAMED_JOBS = 10


def import_(
    ctx: typer.Context,
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="The workspace, or the folder of records itself (.mam/jobs).")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would be done.")] = False,
    allow_damaged: Annotated[
        bool, typer.Option("--allow-damaged", help="Damaged files do not make the exit code 1.")
    ] = False,
    lock_timeout: LockTimeout = 30.0,
    json: Json = False,
) -> None:
    """Import a registry of JSON files.

    Works beside live writers, under the old registry's lock; everything is written in one transaction, after
    it was compared field by field. The files stay as they are. Doing it again takes over what has changed
    since, and never what is older than the database. What cannot be read is named with its reason, and makes
    the exit code 1.

    A job that asked for signatures never comes to do without: whose token was left out or revoked, and in an
    environment that wants tokens every job that has none, accepts no event until 'jobdb token rotate JOB'. Such
    jobs, tokens under 128 bits and jobs whose events need no signature are named; the exit code stays 0.

    A line for each file with tabs between outcome, file, job, events and reason; on a terminal only the files
    that need a look. With --json: an object for each file, and at the end one with the member 'summary'.

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
            progress=output.progress("records"),
        )
    _print_report(report, json=json, more=report.trust())
    _print_trust_warnings(report)
    if dry_run:
        output.note("dry run: nothing was written")
    if not report.ok:
        output.note("some files are damaged and were left out; mend them and import again, or give --allow-damaged")
    if not dry_run:
        output.hint("next: jobdb list")
    if not report.ok:
        raise typer.Exit(1)


def export(
    ctx: typer.Context,
    directory: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIR]", help="A workspace or a folder of records; made when it is missing.", show_default=False
        ),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="FORM", help="Instead of a registry: ndjson or csv, on stdout."),
    ] = None,
    with_secrets: Annotated[
        bool,
        typer.Option(
            "--with-secrets",
            help="Write tokens and broker passwords too, in clear: who can read the folder has them then.",
        ),
    ] = False,
    lock_timeout: LockTimeout = 30.0,
    json: Json = False,
) -> None:
    """Write a registry of JSON files.

    One that the old scripts can use, with a record and the logs of each job, under the old registry's lock.
    A job of which the folder has something newer is skipped with its reason, and makes the exit code 1. The
    old scripts sign with tokens from the files: they need --with-secrets.

    With --format the jobs are written to stdout for other programs: ndjson is an object a job with its events,
    csv a row a job.

    \b
    Examples:
      jobdb export ~/workspace --with-secrets
      jobdb export --format csv > jobs.csv
    """
    if (directory is None) == (output_format is None):
        raise InvalidInput("give a folder, or --format ndjson or csv, and not both")
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
            progress=output.progress("jobs"),
        )
    _print_report(report, json=json)
    if report.secrets_left_out:
        output.note(
            f"the secrets of {report.secrets_left_out} jobs were left out; --with-secrets writes them. An import of "
            "this folder asks for signatures all the same, and accepts no event of a job until its token is rotated"
        )
    if not report.ok:
        raise typer.Exit(1)


def copy(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SRC", help="The registry to copy: a URL or a file's name.")],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="Where to: made when it is missing; it must hold no job.")
    ],
    same_registry: Annotated[
        bool,
        typer.Option(
            "--same-registry",
            help="The copy goes on as the same registry, with its broker sessions and tickets. Only where the source "
            "is never used again.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Copy a whole registry to another database.

    From SQLite to PostgreSQL, back, or between two of a kind: jobs, tokens, events, subscribers and all, in one
    transaction, read back and compared before it is kept. Tokens stay sealed: both need the same master key.
    The source stays as it is; stop its writers first, or what they write meanwhile is not in the copy. To
    brokers and to holders of tickets the copy is another registry, unless --same-registry is given.

    \b
    Examples:
      jobdb copy sqlite:////var/lib/jobs/jobs.db rehearsal.db
      jobdb copy sqlite:////var/lib/jobs/jobs.db postgresql://db.example/jobs --same-registry   # moves for good
    """
    from jobdb.operations.copy import copy_registry
    from jobdb.registry import Registry

    for url in (source, target):
        warn_of_password(url)
    wait = get_settings(ctx).busy_timeout_sec
    with (
        Registry.open(source, busy_timeout_sec=wait) as source_registry,
        Registry.open(target, create=True, busy_timeout_sec=wait) as target_registry,
    ):
        report = copy_registry(source_registry, target_registry, same_registry=same_registry)
    if json:
        output.json_line(report.as_dict())
        return
    output.table(("TABLE", "ROWS"), [(name, str(count)) for name, count in report.rows.items()])
    output.note(f"copied and compared: {report.source} to {report.target}")


_TRUST_MESSAGES = {
    "no_usable_token": "nobody has the token, so no event is accepted until 'jobdb token rotate JOB'",
    "weak_token": "the token has less than 128 bits; 'jobdb token rotate JOB' gives a better one",
    "unsigned": "no token came, and events need no signature",
}


def _print_trust_warnings(report: ImportReport) -> None:
    """Return how many jobs came with less than full trust, and which."""
    from jobdb.legacy.format.damage import TrustWarning

    for warning, what in _TRUST_MESSAGES.items():
        count = report.warnings[TrustWarning(warning)]
        if count:
            rows = (row.job_id for row in report.rows() if row.warning == warning and row.job_id)
            names = ", ".join(islice(rows, _MAX_NAMED_JOBS))
            more = f" and {count - _MAX_NAMED_JOBS} more" if count > _MAX_NAMED_JOBS else ""
            output.note(f"of {_pluralize_jobs(count)} {what}: {names}{more}")
    if report.without_subscribers:
        output.note(
            f"of {_pluralize_jobs(report.without_subscribers)} no subscriber's state came with the events: a "
            f"subscriber that has "
            "handled them elsewhere must begin here with '--start now', or it accepts them once more"
        )


def _pluralize_jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def _print_report(report: Report, *, json: bool, more: dict[str, Any] | None = None) -> None:
    """The files, a row each, and the sum of it."""
    summary = report.as_dict() | (more or {})
    if json:
        for row in report.rows():
            output.json_line(row.as_dict())
        output.json_line({"summary": summary})
        return
    quiet = output.on_terminal()
    rows = [
        (
            (row.outcome.value, _STYLES.get(row.outcome.value, "")),
            row.file,
            row.job_id or "-",
            str(row.events),
            row.reason,
        )
        for row in report.rows()
        if not (quiet and row.outcome.value in _QUIET_OUTCOMES and row.warning in _QUIET_WARNINGS)
    ]
    if rows:
        output.table(("OUTCOME", "FILE", "JOB", "EVENTS", "REASON"), rows, wide="REASON", fold=True)
    counts = ", ".join(f"{count} {outcome.value}" for outcome, count in report.counts.items() if count)
    output.note(f"{report.folder}: {counts or 'no files'}; {report.events} events")
