"""Shell completion of job ids, statuses and events. It must never fail aloud, write, or make a person wait."""

from __future__ import annotations

import typer

_MOST = 200


def job_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The newest jobs whose ids begin as typed, each with its status and agent."""
    import warnings

    from jobdb.errors import JobdbError
    from jobdb.registry import Registry

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            registry = Registry.open(ctx.find_root().params.get("db"), busy_timeout_sec=0.5)
            try:
                jobs = registry.jobs(limit=_MOST)
            finally:
                registry.close(checkpoint=False)
    except (JobdbError, OSError):
        return []
    return [(job.job_id, f"{job.status} {job.agent}") for job in jobs if job.job_id.startswith(incomplete)]


def statuses(incomplete: str) -> list[str]:
    """The statuses that begin as typed."""
    from jobdb.model import JobStatus

    return [status.value for status in JobStatus if status.startswith(incomplete)]


def events(incomplete: str) -> list[str]:
    """The events that begin as typed."""
    from jobdb.model import EventKind

    return [event.value for event in EventKind if event.startswith(incomplete)]
