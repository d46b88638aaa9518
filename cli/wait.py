"""The ``wait`` command, and the exit codes for how a job ended, which subscribe uses too.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls the registry, and
``jobdb.work.artifacts`` for ``--check-artifacts``.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.model import Job, JobStatus

from .claimed_job import resolve_job
from .context import open_registry
from .inputs import check_time_limit
from .messages import print_error
from .output import print_json, print_line
from .parameters import AsJson, ClaimedJobId

EXIT_CODES = {JobStatus.COMPLETED: 0, JobStatus.ERROR: 1, JobStatus.CANCELLED: 6}


def wait(
    ctx: typer.Context,
    job: ClaimedJobId = None,
    timeout_sec: Annotated[
        float | None,
        typer.Option("--timeout-sec", metavar="SEC", help="Give up after SEC seconds. Default: never."),
    ] = None,
    check_artifacts: Annotated[
        str | None,
        typer.Option(
            "--check-artifacts",
            metavar="DIR",
            help="When the job has completed, also check that each file it was expected to create is in DIR.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a job has ended.

    Prints the job's final status; --json prints its record. The exit code tells how the job ended: 0 completed,
    1 error (or an expected file is missing), 6 cancelled; 3 when the timeout was reached first.

    \b
    Examples:
      jobdb wait 0f3a9c2d7b11 --timeout-sec 3600 && deploy
      jobdb wait 0f3a9c2d7b11 --check-artifacts ./work
    """
    timeout_sec = check_time_limit(timeout_sec, option="--timeout-sec")
    job = resolve_job(job)
    with open_registry(ctx) as registry:
        ended = registry.wait(job, timeout_sec=timeout_sec)
    if as_json:
        print_json(ended.as_dict())
    else:
        print_line(ended.status.value)
    code = EXIT_CODES[ended.status]
    if code == 0 and check_artifacts is not None:
        code = _check_artifacts(ended, check_artifacts)
    raise typer.Exit(code)


def _check_artifacts(job: Job, folder: str) -> int:
    from jobdb.work.artifacts import missing_artifacts

    missing = missing_artifacts(folder, job.expected_artifacts)
    for path, fault in missing:
        print_error(f"job {job.job_id} has completed, but {path!r} {fault} (looked in {folder!r})")
    return 1 if missing else 0
