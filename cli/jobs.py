"""The commands that show jobs: list, show."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.model import EventKind, Job, JobStatus

from . import output
from .completion import complete_statuses
from .context import open_registry
from .parameters import JobId, Json

if TYPE_CHECKING:
    from jobdb.model import Event

STATUS_STYLES = {
    JobStatus.PENDING: "cyan",
    JobStatus.RUNNING: "yellow",
    JobStatus.COMPLETED: "green",
    JobStatus.ERROR: "bold red",
    JobStatus.CANCELLED: "dim",
}
_ATTENTION_STYLE = "bold magenta"
_LATEST_EVENTS = 5
_PAGE = 32
"""Jobs that are read at a time: their prompts may have four million characters each."""
_WIDE_COLUMNS = 100
_NARROW_ID = 16
_NARROW_AGENT = 12


def list_jobs(
    ctx: typer.Context,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only jobs of this status; may be repeated.",
            autocompletion=complete_statuses,
        ),
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", "-a", metavar="NAME", help="Only this agent's jobs.")] = None,
    agent_session: Annotated[
        str | None, typer.Option("--agent-session", metavar="NAME", help="Only this session's jobs.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", help="At most so many; 0: all.", min=0)] = 100,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="JOB", help="Go on after this job, the last one of the page before."),
    ] = None,
    json: Json = False,
) -> None:
    """List jobs, newest first.

    On a terminal: a table. In a pipe: a line for each job with tabs between id, status, agent, creation,
    last event, attempt, end of the lease and the prompt's beginning; '-' is what a job does not have. With
    --json: a record on each line.

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
        if json:
            for job in shown:
                output.json_line(job.as_dict())
        elif output.on_terminal():
            _draw(list(shown), more=next(jobs, None) is not None)
        else:
            for job in shown:
                output.tsv_line(*_tsv_values(job))


def _tsv_values(job: Job) -> tuple[object, ...]:
    return (
        job.job_id,
        job.status.value,
        job.agent,
        f"{job.created_at:%Y-%m-%dT%H:%M:%SZ}",
        job.last_event.value if job.last_event else None,
        job.attempt,
        f"{job.lease_expires_at:%Y-%m-%dT%H:%M:%SZ}" if job.lease_expires_at else None,
        _first_line(job.prompt),
    )


def _first_line(prompt: str) -> str:
    first = prompt.strip().partition("\n")[0]
    return first if len(first) <= 80 else first[:79] + "…"


def _draw(jobs: list[Job], *, more: bool) -> None:
    if not jobs:
        output.hint("no such job; 'jobdb register --agent NAME PROMPT' makes one")
        return
    now = datetime.now(UTC)
    narrow = output.console().width < _WIDE_COLUMNS
    headings = ("JOB", "STATUS", "AGENT", "AGE", "LAST" if narrow else "LAST EVENT", "TRY", "LEASE", "PROMPT")
    rows = [_row(job, now, narrow=narrow) for job in jobs]
    # A column that says nothing of any of these jobs leaves its room to the prompts.
    shown_columns = [
        column for column, name in enumerate(headings) if name == "PROMPT" or any(row[column] for row in rows)
    ]
    output.table(
        [headings[column] for column in shown_columns],
        [[row[column] for column in shown_columns] for row in rows],
        wide="PROMPT",
    )
    if more:
        output.hint(f"there are more: --after {output.shell_quote(jobs[-1].job_id)}, or --limit 0 for all")
    elif len(jobs) == 1:
        output.hint(f"all about it: jobdb show {output.shell_quote(jobs[0].job_id)}")


def _row(job: Job, now: datetime, *, narrow: bool) -> list[output.Cell]:
    """A job as a row of the table on a terminal.

    On a narrow one what the status says already is left out, and long names are cut, so that prompts can be read.
    """
    lease: output.Cell = ""
    if job.lease_expires_at is not None:
        left = (job.lease_expires_at - now).total_seconds()
        lease = format_duration(left) if left > 0 else ("ran out", "red")
    return [
        job.job_id if not narrow else _truncate(job.job_id, _NARROW_ID),
        (job.status.value, STATUS_STYLES[job.status]),
        job.agent if not narrow else _truncate(job.agent, _NARROW_AGENT),
        format_duration((now - job.created_at).total_seconds()),
        _last_event(job, now, narrow=narrow),
        str(job.attempt or ""),
        lease,
        (_first_line(job.prompt), "dim"),
    ]


def waits_for_permission(job: Job) -> bool:
    """Whether a person is asked for something."""
    return job.status is JobStatus.RUNNING and job.last_event is EventKind.PERMISSION_REQUIRED


def _truncate(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _last_event(job: Job, now: datetime, *, narrow: bool) -> output.Cell:
    if job.last_event is None or job.last_event_at is None:
        return ""
    since = format_duration((now - job.last_event_at).total_seconds())
    if waits_for_permission(job):
        return f"{'asks' if narrow else 'permission?'} {since}", _ATTENTION_STYLE
    return since if narrow else f"{job.last_event} {since}"


def format_duration(seconds: float) -> str:
    """A duration in one unit: ``45s``, ``12m``, ``3h``, ``9d``."""
    whole = max(0, int(seconds))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def show(ctx: typer.Context, job: JobId, json: Json = False) -> None:
    """Show one job.

    On a terminal with its latest events. With --json: its record as one object.

    \b
    Examples:
      jobdb show 0f3a9c2d7b11
      jobdb show 0f3a9c2d7b11 --json | jq .status
    """
    with open_registry(ctx) as registry:
        found = registry.get(job)
        if json:
            output.json_line(found.as_dict())
            return
        latest: list[Event] = []
        if output.on_terminal():
            latest = registry.events(job, after=max(0, found.last_seq - _LATEST_EVENTS), limit=_LATEST_EVENTS)
    output.record(_record(found, datetime.now(UTC)))
    if latest:
        output.line("")
        output.table(
            ("SEQ", "TIME", "EVENT", "DETAIL"),
            [(str(event.seq), event.timestamp, event.event.value, event.detail) for event in latest],
            wide="DETAIL",
        )
        if found.last_seq > _LATEST_EVENTS:
            output.hint(f"all events: jobdb events {output.shell_quote(found.job_id)}")
    if output.on_terminal():
        _print_hints(found)


def _print_hints(job: Job) -> None:
    """What can be done with the job as it is."""
    name = output.shell_quote(job.job_id)
    if job.status is JobStatus.PENDING:
        output.hint(f"next: jobdb claim --job {name}")
    elif not job.terminal:
        output.hint(f"to follow it: jobdb events {name} --follow; to end it: jobdb cancel {name}")


def _record(job: Job, now: datetime) -> dict[str, output.Cell | None]:
    """A job for reading. Fields that say nothing are left out."""

    def format_time(at: datetime | None) -> str | None:
        if at is None:
            return None
        away = (at - now).total_seconds()
        age = f"in {format_duration(away)}" if away > 0 else f"{format_duration(-away)} ago"
        return f"{at:%Y-%m-%d %H:%M:%SZ} ({age})"

    broker = None
    if job.broker is not None:
        user = f"{job.broker.username}@" if job.broker.username else ""
        broker = f"{'mqtts' if job.broker.tls else 'mqtt'}://{user}{job.broker.host}:{job.broker.port}"
    permission: output.Cell | None = None
    if waits_for_permission(job):
        where = f" in {job.agent_session}" if job.agent_session else ""
        permission = (f"waits for permission{where}", _ATTENTION_STYLE)
    return {
        "job": (job.job_id, "bold"),
        "status": (job.status.value, STATUS_STYLES[job.status]),
        "attention": permission,
        "agent": job.agent,
        "session": job.agent_session,
        "priority": str(job.priority) if job.priority else None,
        "attempt": str(job.attempt) if job.attempt else None,
        "worker": job.worker,
        "lease until": format_time(job.lease_expires_at),
        "strikes": str(job.strikes) if job.strikes else None,
        "created": format_time(job.created_at),
        "started": format_time(job.started_at),
        "finished": format_time(job.finished_at),
        "last event": f"{job.last_seq} {job.last_event}, {format_time(job.last_event_at)}" if job.last_event else None,
        "detail": job.detail,
        "limits": _limits(job),
        "expects": ", ".join(job.expected_artifacts) or None,
        "topic": job.topic,
        "broker": broker,
        "auth": job.auth,
        "extra": _compact(dict(job.extra)) if job.extra else None,
        "prompt": job.prompt,
    }


def _limits(job: Job) -> str:
    limits = [(job.timeout_sec, "in all"), (job.idle_timeout_sec, "without an event")]
    return ", ".join(f"{seconds} s {what}" for seconds, what in limits if seconds) or "none"


def _compact(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
