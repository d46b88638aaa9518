"""The command that waits for a job's end: wait. And the exit codes that stand for how a job ended."""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import InvalidInput
from jobdb.model import Job, JobStatus

from .context import open_registry
from .output import json_line, line, print_error
from .parameters import JobId, Json

EXIT_CODES = {JobStatus.COMPLETED: 0, JobStatus.ERROR: 1, JobStatus.CANCELLED: 6}


def check_time_limit(value: float | None, *, option: str) -> float | None:
    """A time limit as given; None when there is none.

    Raises:
        InvalidInput: it is negative or no number.
    """
    if value is not None and not value >= 0:
        raise InvalidInput(f"{option} is {value}; it may be 0 or more seconds")
    return value


def wait(
    ctx: typer.Context,
    job: JobId,
    timeout_sec: Annotated[
        float | None, typer.Option("--timeout-sec", metavar="SEC", help="Give up after so long; otherwise never.")
    ] = None,
    check_artifacts: Annotated[
        str | None,
        typer.Option(
            "--check-artifacts",
            metavar="DIR",
            help="When it completed, also demand that each file that it was expected to make is in this folder.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Wait until a job has ended.

    Prints its final status, or with --json its record. The exit code says how it ended: 0 completed, 1 error
    (or an expected file is missing), 6 cancelled, 3 still going when the time was over.

    \b
    Examples:
      jobdb wait 0f3a9c2d7b11 --timeout-sec 3600 && deploy
      jobdb wait 0f3a9c2d7b11 --check-artifacts ./work
    """
    timeout_sec = check_time_limit(timeout_sec, option="--timeout-sec")
    with open_registry(ctx) as registry:
        ended = registry.wait(job, timeout_sec=timeout_sec)
    if json:
        json_line(ended.as_dict())
    else:
        line(ended.status.value)
    code = EXIT_CODES[ended.status]
    if code == 0 and check_artifacts is not None:
        code = _check_artifacts(ended, check_artifacts)
    raise typer.Exit(code)


def _check_artifacts(job: Job, folder: str) -> int:
    from .artifacts import missing_artifacts

    missing = missing_artifacts(folder, job.expected_artifacts)
    for path, fault in missing:
        print_error(f"job {job.job_id} has completed, but {path!r} {fault} (looked in {folder!r})")
    return 1 if missing else 0
