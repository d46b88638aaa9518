"""Draws jobs for people: the table of the ``list`` command and the record of the ``show`` command.

Called by ``jobs`` with what it has read; calls ``tables``, never the registry.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobdb.model import Job, JobStatus
from jobdb.system.durations import format_duration

from .formatting import PERMISSION_STYLE, STATUS_STYLES, awaits_permission, first_line, format_tries, truncate
from .messages import print_hint
from .output import on_terminal, print_line
from .question_display import describe_question, print_how_to_answer
from .settings import shell_quote
from .tables import Cell, console, print_record, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import typer

    from jobdb.model import Event, Question

_WIDE_COLUMNS = 100
_NARROW_ID = 16
_NARROW_AGENT = 12
_NARROW_COLUMNS = 8
_WIDE_QUESTION = 32


def draw_jobs(
    ctx: typer.Context, jobs: list[Job], open_questions: Mapping[str, Sequence[Question]], *, more: bool
) -> None:
    """Draw jobs and their open questions as a table; suggest what to do next, and how to see more."""
    if not jobs:
        print_hint("no jobs found; 'jobdb register --agent NAME PROMPT' registers one", ctx)
        return
    now = datetime.now(UTC)
    narrow = console().width < _WIDE_COLUMNS
    headings = (
        *("JOB", "STATUS", "AGENT", "AGE"),
        *(("LAST", "ATT") if narrow else ("LAST EVENT", "ATTEMPT")),
        *("TRIES", "LEASE", "READY", "ASKS", "PROMPT"),
    )
    rows = [_row(job, open_questions.get(job.job_id, ()), now, narrow=narrow) for job in jobs]
    # A column that is empty for all of these jobs leaves its room to the prompts.
    shown_columns = [
        column for column, name in enumerate(headings) if name == "PROMPT" or any(row[column] for row in rows)
    ]
    if narrow and len(shown_columns) > _NARROW_COLUMNS:
        shown_columns.remove(headings.index("AGE"))
    print_table(
        [headings[column] for column in shown_columns],
        [[row[column] for column in shown_columns] for row in rows],
        wide="PROMPT",
    )
    if more:
        print_hint(f"there are more: --after {shell_quote(jobs[-1].job_id)}, or --limit 0 for all")
    elif len(jobs) == 1:
        print_hint(f"details: jobdb show {shell_quote(jobs[0].job_id)}", ctx)


def _row(job: Job, questions: Sequence[Question], now: datetime, *, narrow: bool) -> list[Cell]:
    """Return a job and its open questions as a row of the table.

    On a narrow terminal the last event's name is left out and long names are cut, so that prompts can be read.
    """
    lease: Cell = ""
    if job.lease_expires_at is not None:
        left = (job.lease_expires_at - now).total_seconds()
        lease = format_duration(left) if left > 0 else ("expired", "red")
    delay = delay_sec(job, now)
    return [
        job.job_id if not narrow else truncate(job.job_id, _NARROW_ID),
        (job.status.value, STATUS_STYLES[job.status]),
        job.agent if not narrow else truncate(job.agent, _NARROW_AGENT),
        format_duration((now - job.created_at).total_seconds()),
        _last_event(job, now, narrow=narrow),
        str(job.attempt or ""),
        format_tries(job.strikes, job.max_attempts),
        lease,
        f"in {format_duration(delay)}" if delay else "",
        _asks(questions, narrow=narrow),
        (first_line(job.prompt), "dim"),
    ]


def _asks(questions: Sequence[Question], *, narrow: bool) -> Cell:
    if not questions:
        return ""
    more = f" (+{len(questions) - 1})" if len(questions) > 1 else ""
    return truncate(first_line(questions[0].text), _NARROW_ID if narrow else _WIDE_QUESTION) + more, PERMISSION_STYLE


def delay_sec(job: Job, now: datetime) -> float:
    """Return for how many more seconds nobody can claim a pending job; 0 if it is ready, or not pending."""
    if job.status is not JobStatus.PENDING or job.not_before is None:
        return 0
    return max(0, (job.not_before - now).total_seconds())


def _last_event(job: Job, now: datetime, *, narrow: bool) -> Cell:
    if job.last_event is None or job.last_event_at is None:
        return ""
    age = format_duration((now - job.last_event_at).total_seconds())
    if awaits_permission(job):
        return f"{'asks' if narrow else 'permission?'} {age}", PERMISSION_STYLE
    return age if narrow else f"{job.last_event} {age}"


def draw_job(ctx: typer.Context, job: Job, questions: Sequence[Question], latest_events: list[Event]) -> None:
    """Draw a job's record, open questions and latest events; on a terminal, suggest what to do next."""
    now = datetime.now(UTC)
    print_record(_record(job, questions, now))
    if latest_events:
        print_line("")
        print_table(
            ("SEQ", "TIME", "EVENT", "DETAIL"),
            [(str(event.seq), event.timestamp, event.event.value, event.detail) for event in latest_events],
            wide="DETAIL",
        )
        if job.last_seq > len(latest_events):
            print_hint(f"all events: jobdb events {shell_quote(job.job_id)}", ctx)
    if on_terminal() and questions:
        print_how_to_answer(ctx, questions[0])
    elif on_terminal():
        _print_next_step(ctx, job, now)


def _print_next_step(ctx: typer.Context, job: Job, now: datetime) -> None:
    name = shell_quote(job.job_id)
    if delay := delay_sec(job, now):
        print_hint(f"in {format_duration(delay)}: jobdb claim --job {name}", ctx)
    elif job.status is JobStatus.PENDING:
        print_hint(f"next: jobdb claim --job {name}", ctx)
    elif not job.terminal:
        print_hint(f"to follow it: jobdb events {name} --follow; to end it: jobdb cancel {name}", ctx)


def _record(job: Job, questions: Sequence[Question], now: datetime) -> dict[str, Cell | None]:
    """Return a job's fields as a person reads them; None for those without a value."""

    def format_time(time: datetime | None) -> str | None:
        if time is None:
            return None
        seconds = (time - now).total_seconds()
        distance = f"in {format_duration(seconds)}" if seconds > 0 else f"{format_duration(-seconds)} ago"
        return f"{time:%Y-%m-%d %H:%M:%SZ} ({distance})"

    broker = None
    if job.broker is not None:
        user = f"{job.broker.username}@" if job.broker.username else ""
        broker = f"{'mqtts' if job.broker.tls else 'mqtt'}://{user}{job.broker.host}:{job.broker.port}"
    attention: Cell | None = None
    if awaits_permission(job):
        session = f" in {job.agent_session}" if job.agent_session else ""
        attention = (f"waits for permission{session}", PERMISSION_STYLE)
    asks: Cell | None = None
    if questions:
        asks = ("\n".join(describe_question(question, now) for question in questions), PERMISSION_STYLE)
    return {
        "job": (job.job_id, "bold"),
        "status": (job.status.value, STATUS_STYLES[job.status]),
        "attention": attention,
        "asks": asks,
        "agent": job.agent,
        "session": job.agent_session,
        "priority": str(job.priority) if job.priority else None,
        "attempt": str(job.attempt) if job.attempt else None,
        "worker": job.worker,
        "lease until": format_time(job.lease_expires_at),
        "ready": format_time(job.not_before) if delay_sec(job, now) else None,
        "tries": _tries(job),
        "created": format_time(job.created_at),
        "started": format_time(job.started_at),
        "finished": format_time(job.finished_at),
        "last event": f"{job.last_seq} {job.last_event}, {format_time(job.last_event_at)}" if job.last_event else None,
        "detail": job.detail,
        "limits": _limits(job, questions, now),
        "expects": ", ".join(job.expected_artifacts) or None,
        "topic": job.topic,
        "broker": broker,
        "auth": job.auth,
        "extra": json.dumps(dict(job.extra), ensure_ascii=False) if job.extra else None,
        "prompt": job.prompt,
    }


def _tries(job: Job) -> str | None:
    if job.max_attempts is None:
        return f"{job.strikes} used up" if job.strikes else None
    return f"{job.strikes} of {job.max_attempts} used up"


def _limits(job: Job, questions: Sequence[Question], now: datetime) -> str:
    """Return the time limits, and what keeps the idle limit from ending the job at present."""
    protected = ""
    if job.status is JobStatus.RUNNING:
        if job.lease_expires_at is not None and job.lease_expires_at > now:
            protected = " (not under its live lease)"
        elif questions or awaits_permission(job):
            protected = " (not while it waits for permission)"
    limits = [(job.timeout_sec, "in all"), (job.idle_timeout_sec, f"without a sign of life{protected}")]
    return ", ".join(f"{seconds} s {scope}" for seconds, scope in limits if seconds) or "none"
