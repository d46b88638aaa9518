"""Shell completion of job ids, statuses and events. It never prints an error, never writes, and answers quickly.

Called by Typer when the shell asks for completions, for the parameters that name these functions; reads the registry,
which it imports only then.

The shell treats a completion's answer as code: zsh evaluates values and help texts, bash expands values, and all of
them put a value into a line that a person then runs. So a value comes from a fixed list or matches a pattern without a
character that is special in any shell, and no text from a database (an agent's name, a prompt) becomes a help text.
"""

from __future__ import annotations

import typer

_MAX_JOB_IDS = 200


def complete_job_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the newest jobs whose ids start with what was typed, each with its status."""
    import re
    import warnings

    from jobdb.core.protocol import JOB_ID_PATTERN
    from jobdb.registry import Registry

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            registry = Registry.open(ctx.find_root().params.get("db"), busy_timeout_sec=0.5)
            try:
                jobs = registry.jobs(limit=_MAX_JOB_IDS)
            finally:
                registry.close(checkpoint=False)
    except Exception:  # the command itself will report what is wrong with the database
        return []
    # jobdb registers no other ids; a database file that came from elsewhere may hold some.
    return [
        (job.job_id, job.status.value)
        for job in jobs
        if job.job_id.startswith(incomplete) and re.fullmatch(JOB_ID_PATTERN, job.job_id)
    ]


def complete_jobs_and_events(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return what ``publish`` may begin with: a job, or an event of the job that the environment names."""
    from .claimed_job import job_of_environment

    events = [] if job_of_environment() is None else [(event, "event") for event in complete_events(incomplete)]
    return events + complete_job_ids(ctx, incomplete)


def complete_statuses(incomplete: str) -> list[str]:
    """Return the statuses that start with what was typed."""
    from jobdb.model import JobStatus

    return [status.value for status in JobStatus if status.startswith(incomplete)]


def complete_events(incomplete: str) -> list[str]:
    """Return the events that start with what was typed."""
    from jobdb.model import EventKind

    return [event.value for event in EventKind if event.startswith(incomplete)]
