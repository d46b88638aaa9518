"""The commands of a worker's hold on a job: claim, renew, release."""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import InvalidInput

from .completion import complete_job_ids
from .context import open_registry
from .output import hint, json_line, line, note, shell_quote
from .parameters import ClaimedAttempt, JobId, Json, LeaseSec


def claim(
    ctx: typer.Context,
    agent: Annotated[str | None, typer.Option("--agent", "-a", metavar="NAME", help="Only this agent's jobs.")] = None,
    agent_session: Annotated[
        str | None, typer.Option("--agent-session", metavar="NAME", help="Only this session's jobs.")
    ] = None,
    job: Annotated[
        str | None, typer.Option("--job", metavar="JOB", help="Only this job.", autocompletion=complete_job_ids)
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option("--worker", metavar="NAME", envvar="JOBDB_WORKER", help="Who takes it; host:process otherwise."),
    ] = None,
    lease_sec: Annotated[
        float,
        typer.Option(
            "--lease-sec", metavar="SEC", help="The claim runs out after so many seconds unless renewed; 0: never."
        ),
    ] = 300.0,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SEC", help="Wait so long for work when there is none.")
    ] = 0.0,
    json: Json = False,
) -> None:
    """Take the next pending job and print its id.

    The job of the highest priority comes first, then the oldest. One worker has a job at a time: its claim's
    number, the attempt, goes with everything that it does (--attempt or JOBDB_ATTEMPT), and is refused once
    the claim was taken over. With --json: the job's record with attempt, worker and lease_expires_at.
    Exit code 1 when nothing is pending.

    \b
    Examples:
      jobdb claim --agent claude-code --json
      jobdb claim --agent codex --wait 60 --lease-sec 600
    """
    if not 0 <= wait <= 366 * 86_400:
        raise InvalidInput(f"--wait is {wait}; it may be 0 to 31622400 seconds")
    with open_registry(ctx) as registry:
        taken = registry.claim(
            worker=worker or _default_worker(),
            agent=agent,
            agent_session=agent_session,
            job_id=job,
            lease_sec=lease_sec or None,
            wait_sec=wait,
        )
    if taken is None:
        note("nothing is pending")
        raise typer.Exit(1)
    if json:
        json_line(taken.job.as_dict())
        return
    line(taken.job_id)
    name = shell_quote(taken.job_id)
    hint(f"what is to be done: jobdb show {name}")
    hint(f"next: jobdb publish {name} started --attempt {taken.attempt}")


def _default_worker() -> str:
    """The host and the process that runs this command: it outlives the command, whose own number says nothing."""
    import os

    return f"{os.uname().nodename}:{os.getppid()}"[:256]


def renew(
    ctx: typer.Context, job: JobId, attempt: ClaimedAttempt, lease_sec: LeaseSec = 300.0, json: Json = False
) -> None:
    """Give a claim's lease a new end.

    Counted from now; prints when it ends. Exit code 1 when the claim was taken over: stop the work then.

    \b
    Example:
      jobdb renew 0f3a9c2d7b11 --attempt 1 --lease-sec 600
    """
    with open_registry(ctx) as registry:
        renewed = registry.renew(job, attempt=attempt, lease_sec=lease_sec)
    record = renewed.job.as_dict()
    if json:
        json_line(record)
    else:
        line(record["lease_expires_at"])


def release(ctx: typer.Context, job: JobId, attempt: ClaimedAttempt, json: Json = False) -> None:
    """Give a claimed job back.

    It is pending again, for whoever claims next.

    \b
    Example:
      jobdb release 0f3a9c2d7b11 --attempt 1
    """
    with open_registry(ctx) as registry:
        released = registry.release(job, attempt=attempt)
    if json:
        json_line(released.as_dict())
