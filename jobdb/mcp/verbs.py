"""The functions behind the tools: each function calls a verb of the registry and returns the record as JSON values.

Called by the tools (``tool.py``), with checked argument names and types; calls ``AsyncRegistry``. Waits are bounded,
and end with a result instead of an error: an agent that waits asks again.
"""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any, cast

from ..core import arguments
from ..errors import Refused, TimedOut

if TYPE_CHECKING:
    from ..model import Claim, Event, EventName, Job, Question, StatusName
    from .session import Session

MAX_WAIT_SEC = 3600
DEFAULT_LEASE_SEC = 900.0
DEFAULT_ASK_SEC = 50.0
"""Below the 60 seconds after which common clients give a call up."""
SHOWN_PROMPT_CHARS = 300

Result = dict[str, Any]


async def register(session: Session, **options: Any) -> Result:
    """Register a job."""
    return (await session.registry.register(**options)).as_dict()


async def claim(
    session: Session, *, wait_sec: float = 0, lease_sec: float = DEFAULT_LEASE_SEC, **wanted: Any
) -> Result:
    """Claim a job; ``claimed`` is false if none is ready."""
    found = await session.registry.claim(
        worker=session.worker,
        lease_sec=lease_sec,
        wait_sec=arguments.seconds("wait_sec", wait_sec, most=MAX_WAIT_SEC),
        **wanted,
    )
    if found is None or not await session.keep_claim(found):
        return {"claimed": False, "claim": None}
    return {"claimed": True, "claim": _claim_as_dict(found)}


def _claim_as_dict(found: Claim) -> Result:
    job = found.job.as_dict()
    return {
        "job_id": found.job_id,
        "attempt": found.attempt,
        "worker": found.worker,
        "lease_expires_at": job["lease_expires_at"],
        "job": job,
    }


async def renew(session: Session, *, job_id: str, attempt: int, lease_sec: float = DEFAULT_LEASE_SEC) -> Result:
    """Extend the lease of a claim."""
    session.note_use(job_id)
    return _claim_as_dict(await session.registry.renew(job_id, attempt=attempt, lease_sec=lease_sec))


async def release(session: Session, *, job_id: str, attempt: int, **options: Any) -> Result:
    """Give a claim up."""
    session.note_use(job_id)
    return (await session.registry.release(job_id, attempt=attempt, **options)).as_dict()


async def publish(session: Session, *, job_id: str, event: str, attempt: int | None = None, **content: Any) -> Result:
    """Publish an event."""
    session.note_use(job_id)
    kind = cast("EventName", event)
    return _event(await session.registry.publish(job_id, kind, attempt=attempt, **content))


async def complete(session: Session, *, job_id: str, attempt: int | None = None, **content: Any) -> Result:
    """End a job as completed."""
    session.note_use(job_id)
    return _event(await session.registry.complete(job_id, attempt=attempt, **content))


async def fail(session: Session, *, job_id: str, attempt: int | None = None, **content: Any) -> Result:
    """End a job as failed."""
    session.note_use(job_id)
    return _event(await session.registry.fail(job_id, attempt=attempt, **content))


def _event(event: Event) -> Result:
    return event.as_dict()


async def ask(
    session: Session,
    *,
    job_id: str,
    text: str,
    attempt: int | None = None,
    wait_sec: float = DEFAULT_ASK_SEC,
    **options: Any,
) -> Result:
    """Ask a question and wait for its answer; whatever is not the answer ``allow`` allows nothing."""
    wait_sec = arguments.seconds("wait_sec", wait_sec, most=MAX_WAIT_SEC)
    session.asking.add(job_id)
    session.note_use(job_id)
    question = await session.registry.ask(job_id, text, attempt=attempt, **options)
    try:
        question = await session.registry.wait_for_answer(job_id, question.key, attempt=attempt, timeout_sec=wait_sec)
    except TimedOut:
        return _asked(question, "unanswered")
    return _asked(question, "answered")


def _asked(question: Question, outcome: str) -> Result:
    return {"outcome": outcome, "allowed": question.is_allowed, "question": question.as_dict()}


async def answer(session: Session, *, job_id: str, answer: str, **options: Any) -> Result:
    """Answer a question of another agent."""
    if job_id in session.asking:
        raise Refused(
            f"the questions of job {job_id!r} are asked through this server, so it does not answer them",
            advice="wait for somebody else's answer",
        )
    answered = await session.registry.answer(job_id, answer, by=_answerer(session), **options)
    return answered.as_dict()


def _answerer(session: Session) -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user on this machine
        user = "unknown"
    return f"{user} by mcp {session.worker}"[:256]


async def questions(
    session: Session, *, job_id: str | None = None, open_only: bool = True, after: int = 0, limit: int = 100
) -> Result:
    """List questions, the oldest first."""
    found = await session.registry.questions(job_id=job_id, open_only=open_only, after=after, limit=limit)
    return {
        "questions": [question.as_dict() for question in found],
        "next_after": found[-1].number if len(found) == limit else None,
    }


async def show(session: Session, *, job_id: str) -> Result:
    """Show a job and its open questions."""
    job = await session.registry.get(job_id)
    asked = await session.registry.questions(job_id=job_id)
    return {"job": job.as_dict(), "open_questions": [question.as_dict() for question in asked]}


async def list_jobs(session: Session, *, status: list[str] | None = None, limit: int = 20, **wanted: Any) -> Result:
    """List jobs, newest first, with the beginnings of their prompts."""
    statuses = [cast("StatusName", name) for name in status or ()]
    page = await session.registry.jobs(status=statuses, limit=limit, **wanted)
    return {"jobs": [_short(job) for job in page], "next_after": page.next_after}


def _short(job: Job) -> Result:
    record = job.as_dict()
    if len(job.prompt) > SHOWN_PROMPT_CHARS:
        record["prompt"] = job.prompt[:SHOWN_PROMPT_CHARS] + "…"
    return record


async def wait(session: Session, *, job_id: str, wait_sec: float = DEFAULT_ASK_SEC) -> Result:
    """Wait until a job has ended; ``ended`` is false if it has not in time."""
    wait_sec = arguments.seconds("wait_sec", wait_sec, most=MAX_WAIT_SEC)
    try:
        job = await session.registry.wait(job_id, timeout_sec=wait_sec)
    except TimedOut:
        job = await session.registry.get(job_id)
        if job.terminal:  # it has ended just now; what is answered is durable
            job = await session.registry.wait(job_id)
    return {"ended": job.terminal, "job": job.as_dict()}


async def events(session: Session, *, job_id: str, after: int = 0, limit: int = 100) -> Result:
    """List a job's events."""
    page = await session.registry.events(job_id, after=after, limit=limit)
    return {
        "events": [event.as_dict() for event in page],
        "next_after": page.next_after,
    }
