"""The context of an attempt: what ``$JOBDB_CONTEXT`` tells the agent of its job and of the attempts before it.

Called by the worker before it starts an attempt; reads the registry and, if they are on this host, the ends of the
earlier attempts' logs.

The file is one JSON object, so that an agent that is tried again can go on where the last one stopped::

    {
      "schema_version": 1,
      "job": {...},                       the job's record, as 'jobdb show --json' prints it; no token
      "attempt": 3,                       the number of this attempt
      "reason": "exit code 1",            why the job was returned to the queue after the last attempt; null: it was not
      "answers": [                        the last 100 answered questions of the job, oldest first
        {"key": "q4", "attempt": 2, "text": "May I delete build/?", "answer": "deny", "message": "keep it",
         "answered_by": "ann", "answered_at": "2026-06-19T09:32:40.000Z"}
      ],
      "earlier_attempts": [               the last ten at most, oldest first
        {
          "attempt": 2,
          "worker": "host1:4711",         null, as the three below, if no worker that runs agents made it
          "host": "host1",
          "started_at": "2026-06-19T09:32:00.000Z",
          "log": "/srv/logs/sort-1/2.log",
          "last_event": {"seq": 7, "event": "progress", "timestamp": "2026-06-19T09:33:00Z", "detail": "step 3"},
          "session": "01a2224c",          the agent's session, as its hooks have reported it; null if they have not
          "log_tail": "the last lines\n"  null if there is no log on this host
        }
      ]
    }

Fields may be added. Details are cut at 1,000 characters, tails at 40 lines or 4,096 bytes. Events are looked for among
the job's last 1,000: ``last_event`` is null if there is none of the attempt.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .logs import last_lines

if TYPE_CHECKING:
    from ..model import Attempt, Event, Job
    from ..registry import Registry

SCHEMA_VERSION = 1
MAX_ATTEMPTS = 10
MAX_EVENTS = 1000
MAX_ANSWERS = 100
MAX_DETAIL_CHARS = 1000
MAX_TAIL_LINES = 40
MAX_TAIL_BYTES = 4096


def build_context(registry: Registry, job: Job) -> str:
    """Return the text of an attempt's context file.

    Args:
        registry: the registry; read only if there were earlier attempts.
        job: the job as it was claimed; its ``attempt`` is the one that begins.

    Raises:
        UnknownJob: the job is gone.
    """
    return json.dumps(describe_context(registry, job), ensure_ascii=False, indent=1) + "\n"


def describe_context(registry: Registry, job: Job) -> dict[str, Any]:
    """Return the context as JSON-ready values; see :func:`build_context`."""
    earlier: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    reason = None
    if job.attempt > 1:
        recorded = {found.attempt: found for found in registry.attempts(job.job_id)}
        events, sessions = _last_events(registry, job)
        answers = _last_answers(registry, job.job_id)
        announced = events.get(job.attempt)
        # The event that announced this attempt has replaced the job's detail, and says what that was.
        reason = job.detail if announced is None else announced.data.get("after")
        for attempt in range(max(1, job.attempt - MAX_ATTEMPTS), job.attempt):
            described = _describe_attempt(attempt, recorded.get(attempt), events.get(attempt))
            earlier.append({**described, "session": sessions.get(attempt)})
    return {
        "schema_version": SCHEMA_VERSION,
        "job": job.as_dict(),
        "attempt": job.attempt,
        "reason": _cut(reason) if isinstance(reason, str) else None,
        "answers": answers,
        "earlier_attempts": earlier,
    }


def _last_events(registry: Registry, job: Job) -> tuple[dict[int, Event], dict[int, str]]:
    """Return the last event and the agent's last session of each attempt, as far as the job's last events have them."""
    found: dict[int, Event] = {}
    sessions: dict[int, str] = {}
    for event in registry.all_events(job.job_id, after=max(0, job.last_seq - MAX_EVENTS)):
        if event.attempt is not None and event.seq <= job.last_seq:
            found[event.attempt] = event
            session = event.data.get("session")
            if isinstance(session, str):
                sessions[event.attempt] = _cut(session)
    return found, sessions


def _last_answers(registry: Registry, job_id: str) -> list[dict[str, Any]]:
    """Return the last answered questions of a job, the oldest first."""
    found: deque[dict[str, Any]] = deque(maxlen=MAX_ANSWERS)
    after = 0
    while page := registry.questions(job_id=job_id, open_only=False, after=after):
        after = page[-1].number
        for question in page:
            if question.answer is not None:
                known = question.as_dict()
                cut = {name: _cut(known[name]) for name in ("text", "answer", "message")}
                kept = ("key", "attempt", "text", "answer", "message", "answered_by", "answered_at")
                found.append({name: {**known, **cut}[name] for name in kept})
    return list(found)


def _describe_attempt(number: int, attempt: Attempt | None, event: Event | None) -> dict[str, Any]:
    described: dict[str, Any] = dict.fromkeys(("attempt", "worker", "host", "started_at", "log"))
    if attempt is not None:
        known = attempt.as_dict()
        described = {name: known[name] for name in described}
    return {
        **described,
        "attempt": number,
        "last_event": None if event is None else _describe_event(event),
        "log_tail": None if attempt is None or attempt.log is None else _tail(attempt.log),
    }


def _describe_event(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "event": event.event.value,
        "timestamp": event.timestamp,
        "detail": _cut(event.detail),
    }


def _tail(log: str) -> str | None:
    with suppress(OSError):
        return last_lines(log, lines=MAX_TAIL_LINES, max_bytes=MAX_TAIL_BYTES).decode("utf-8", "replace")
    return None


def _cut(text: str) -> str:
    return text if len(text) <= MAX_DETAIL_CHARS else text[: MAX_DETAIL_CHARS - 1] + "…"
