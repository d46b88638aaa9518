"""The commands that show jobs: list and show.

Called by the ``jobdb`` group (``commands.py``), when one of them is run; calls the registry, which it only reads.
``job_display`` draws the jobs for people; JSON and plain lines are printed here.
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .claimed_job import resolve_job
from .completion import complete_statuses
from .context import open_registry
from .formatting import first_line
from .parameters import AsJson, ClaimedJobId

if TYPE_CHECKING:
    from jobdb.model import Event, Job

_LATEST_EVENTS = 5
_MAX_QUESTIONS = 20
_PAGE = 32
"""Jobs read at a time: the prompt of each may have four million characters."""


def list_jobs(
    ctx: typer.Context,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only jobs with this status; may be repeated.",
            autocompletion=complete_statuses,
        ),
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", "-a", metavar="NAME", help="Only jobs of this agent.")] = None,
    agent_session: Annotated[
        str | None, typer.Option("--agent-session", metavar="NAME", help="Only jobs of this session.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", help="The maximum number of jobs; 0: all.", min=0)
    ] = 100,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="JOB", help="Continue after this job, the last one of the previous page."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first.

    On a terminal: a table, which also shows what a job asks. In a pipe: one line per job with tab-separated id,
    status, agent, time of creation, last event, attempt, end of the lease and the prompt's first line; '-' stands for
    a missing value. With --json: one record per line.

    \b
    Examples:
      jobdb list --status running --status pending
      jobdb list --agent codex --limit 0 --json
    """
    from jobdb.core import arguments

    with open_registry(ctx) as registry:
        jobs = registry.all_jobs(
            status=arguments.statuses(status or ()),
            agent=agent,
            agent_session=agent_session,
            after=after,
            page_size=min(limit or _PAGE, _PAGE),
        )
        shown = jobs if limit == 0 else islice(jobs, min(limit, sys.maxsize))
        if as_json:
            for job in shown:
                output.print_json(job.as_dict())
        elif output.on_terminal():
            from .job_display import draw_jobs
            from .question_display import open_questions

            listed = list(shown)
            asked = open_questions(registry, {job.job_id for job in listed if not job.terminal})
            draw_jobs(ctx, listed, asked, more=next(jobs, None) is not None)
        else:
            for job in shown:
                output.print_tsv(*_tsv_values(job))


def _tsv_values(job: Job) -> tuple[object, ...]:
    return (
        job.job_id,
        job.status.value,
        job.agent,
        f"{job.created_at:%Y-%m-%dT%H:%M:%SZ}",
        job.last_event.value if job.last_event else None,
        job.attempt,
        f"{job.lease_expires_at:%Y-%m-%dT%H:%M:%SZ}" if job.lease_expires_at else None,
        first_line(job.prompt),
    )


def show(ctx: typer.Context, job: ClaimedJobId = None, as_json: AsJson = False) -> None:
    """Show a job.

    Shows its record and its open questions; on a terminal, its latest events too. With --json: its record as one
    object; 'jobdb questions JOB --json' prints the questions.

    \b
    Examples:
      jobdb show 0f3a9c2d7b11
      jobdb show 0f3a9c2d7b11 --json | jq .status
    """
    job = resolve_job(job)
    with open_registry(ctx) as registry:
        shown = registry.get(job)
        if as_json:
            output.print_json(shown.as_dict())
            return
        latest: list[Event] = []
        if output.on_terminal():
            latest = registry.events(job, after=max(0, shown.last_seq - _LATEST_EVENTS), limit=_LATEST_EVENTS)
        questions = [] if shown.terminal else registry.questions(job_id=job, limit=_MAX_QUESTIONS)
    from .job_display import draw_job

    draw_job(ctx, shown, questions, latest)
