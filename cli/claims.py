"""The commands about a worker's claim to a job: claim, renew, release.

Called by the ``jobdb`` group (``commands.py``), when one of them is run; calls the registry's verbs of the same names.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobdb.errors import InvalidInput

from .claimed_job import ATTEMPT_VARIABLE, JOB_ID_VARIABLE, resolve_attempt, resolve_job
from .completion import complete_job_ids
from .context import open_registry
from .output import print_json, print_line
from .parameters import AsJson, Attempt, ClaimedJobId, LeaseSec


def claim(
    ctx: typer.Context,
    agent: Annotated[str | None, typer.Option("--agent", "-a", metavar="NAME", help="Only jobs of this agent.")] = None,
    agent_session: Annotated[
        str | None, typer.Option("--agent-session", metavar="NAME", help="Only jobs of this session.")
    ] = None,
    job: Annotated[
        str | None, typer.Option("--job", metavar="JOB", help="Only this job.", autocompletion=complete_job_ids)
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option(
            "--worker", metavar="NAME", envvar="JOBDB_WORKER", help="The worker's name. Default: host:process."
        ),
    ] = None,
    lease_sec: Annotated[
        float,
        typer.Option(
            "--lease-sec", metavar="SEC", help="The claim expires after SEC seconds unless renewed; 0: never."
        ),
    ] = 300.0,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SEC", help="Wait up to SEC seconds for a job when none is ready.")
    ] = 0.0,
    export: Annotated[
        bool,
        typer.Option(
            "--export", help="Print a line of shell that sets JOBDB_JOB_ID and JOBDB_ATTEMPT for further commands."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Claim the next ready job and print its id.

    A job is ready when it is pending and not delayed; a job whose lease has expired is returned to the queue first.
    Jobs are claimed by priority, then by age. Exit code 1 when no job is ready.

    One worker at a time holds a job, until its lease ends: it renews the lease in time, and stops the work if that is
    refused. While the lease is live, silence does not end the job. Each further command needs the claim's number, the
    attempt: the line that --export prints sets it, and the job, for all of them. --json prints the job's record:
    prompt, attempt, worker, lease_expires_at and the rest. 'jobdb work' does all this for a command that it runs.

    \b
    Examples:
      claimed=$(jobdb claim --agent codex --lease-sec 600 --export) && eval "$claimed"
      jobdb claim --agent claude-code --wait 60 --json
    """
    if export and as_json:
        raise InvalidInput("--export and --json both select the output format; give one of them")
    if not 0 <= wait <= 366 * 86_400:
        raise InvalidInput(f"--wait is {wait}; the range is 0 to 31622400 seconds")
    with open_registry(ctx) as registry:
        claimed = registry.claim(
            worker=worker or _default_worker(),
            agent=agent,
            agent_session=agent_session,
            job_id=job,
            lease_sec=lease_sec or None,
            wait_sec=wait,
        )
    if claimed is None:
        from .messages import print_note

        print_note("no job is ready")
        raise typer.Exit(1)
    if as_json:
        print_json(claimed.job.as_dict())
        return
    from .messages import print_hint
    from .settings import shell_quote

    name = shell_quote(claimed.job_id)
    if export:
        print_line(f"export {JOB_ID_VARIABLE}={name} {ATTEMPT_VARIABLE}={claimed.attempt}")
        print_hint("the job's prompt: jobdb show", ctx)
        print_hint("next: jobdb publish started", ctx)
        return
    print_line(claimed.job_id)
    print_hint(f"the job's prompt: jobdb show {name}", ctx)
    print_hint(f"next: jobdb publish {name} started --attempt {claimed.attempt}", ctx)


def _default_worker() -> str:
    """Return this host and the parent process, which outlives this command: its own process id would be useless."""
    import os

    return f"{os.uname().nodename}:{os.getppid()}"[:256]


def renew(
    ctx: typer.Context,
    job: ClaimedJobId = None,
    attempt: Attempt = None,
    lease_sec: LeaseSec = 300.0,
    as_json: AsJson = False,
) -> None:
    """Extend the lease of a claim.

    The lease then ends --lease-sec seconds from now; prints that time. Exit code 1 when another worker has taken over
    the claim, or the job has ended: stop the work then.

    \b
    Example:
      jobdb renew 0f3a9c2d7b11 --attempt 1 --lease-sec 600
    """
    job = resolve_job(job)
    attempt = resolve_attempt(job, attempt)
    with open_registry(ctx) as registry:
        renewed = registry.renew(job, attempt=attempt, lease_sec=lease_sec)
    record = renewed.job.as_dict()
    if as_json:
        print_json(record)
    else:
        print_line(record["lease_expires_at"])


def release(
    ctx: typer.Context,
    job: ClaimedJobId = None,
    attempt: Attempt = None,
    delay: Annotated[
        float, typer.Option("--delay", metavar="SEC", help="Nobody can claim it for SEC seconds.", min=0)
    ] = 0.0,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="The reason, stored as the job's detail.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give up a claim; the job becomes pending again.

    The next worker that asks may claim it, after the --delay. This uses up none of the job's tries.

    \b
    Examples:
      jobdb release 0f3a9c2d7b11 --attempt 1
      jobdb release 0f3a9c2d7b11 --attempt 1 --delay 60 --reason "the model is overloaded"
    """
    job = resolve_job(job)
    attempt = resolve_attempt(job, attempt)
    with open_registry(ctx) as registry:
        released = registry.release(job, attempt=attempt, delay_sec=delay, reason=reason)
    if as_json:
        print_json(released.as_dict())
