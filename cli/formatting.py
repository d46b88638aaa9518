"""Styles and short texts that several commands show: styles of statuses and events, counts, first lines.

Used by the commands that show jobs, events or counts; imports only ``jobdb.model``, prints nothing.
"""

from __future__ import annotations

from jobdb.model import EventKind, Job, JobStatus

STATUS_STYLES = {
    JobStatus.PENDING: "cyan",
    JobStatus.RUNNING: "yellow",
    JobStatus.COMPLETED: "green",
    JobStatus.ERROR: "bold red",
    JobStatus.CANCELLED: "dim",
}

PERMISSION_STYLE = "bold magenta"
"""The style of what waits for a person's permission."""

EVENT_STYLES = {
    EventKind.PERMISSION_REQUIRED: PERMISSION_STYLE,
    EventKind.COMPLETED: STATUS_STYLES[JobStatus.COMPLETED],
    EventKind.ERROR: STATUS_STYLES[JobStatus.ERROR],
}


def awaits_permission(job: Job) -> bool:
    """Return whether a running job waits for a person's permission."""
    return job.status is JobStatus.RUNNING and job.last_event is EventKind.PERMISSION_REQUIRED


def format_tries(strikes: int, max_attempts: int | None) -> str:
    """Return the tries that a job has used up, of how many: ``1/3``, or ``1`` if it has no number of its own."""
    if not strikes:
        return ""
    return str(strikes) if max_attempts is None else f"{strikes}/{max_attempts}"


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 job``, ``2 jobs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_line(prompt: str) -> str:
    """Return the first line of a prompt, shortened to 80 characters."""
    return truncate(prompt.strip().partition("\n")[0], 80)


def truncate(text: str, max_chars: int) -> str:
    """Return a text, cut off with an ellipsis where it is longer than ``max_chars``."""
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
