"""The conversion of rows of the view ``job_records`` to jobs.

Called by the verbs that return jobs: claim, register, get, list. Converts rows only, and runs no statement.

Imported where a job is read: an agent runs the command line once per event, and creating the class takes a millisecond.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from ...model import Job
from .rows import KINDS, STATUSES, broker_from_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..store import Row


class JobRecord(NamedTuple):
    """A row of the view ``job_records``: everything in the public object of a job."""

    job_id: str
    status: str
    agent: str
    agent_session: str | None
    prompt: str
    priority: int
    topic_prefix: str
    broker: str | None
    has_broker_password: int
    timeout_sec: int
    idle_timeout_sec: int
    expected_artifacts: str
    last_seq: int
    attempt: int
    strikes: int
    worker: str | None
    lease_until_ms: int | None
    created_ms: int
    updated_ms: int
    started_ms: int | None
    finished_ms: int | None
    last_event: str | None
    last_event_ms: int | None
    detail: str | None
    kid: int
    extra: str
    id: int
    max_attempts: int | None
    not_before_ms: int | None


record_id = itemgetter(JobRecord._fields.index("id"))
"""Returns the primary key of a row. No named tuple is created: a page has hundreds of rows."""


class _MutableJob:
    """A job whose fields are being set: with the layout of a job, but not frozen yet.

    The constructor of a frozen class sets each field through ``object.__setattr__``, at ten times the cost, and a page
    has hundreds of fields.
    """

    __slots__ = Job.__slots__


def job_from_row(row: Row) -> Job:
    """Convert a row of the view ``job_records`` (see :class:`JobRecord`) to a job."""
    return jobs_from_rows((row,))[0]


def jobs_from_rows(rows: Iterable[Row]) -> list[Job]:
    """Convert a page of rows to jobs, in the same order."""
    jobs: list[Job] = []
    registered_ms, created = None, None
    add_job, statuses, kinds, to_datetime = jobs.append, STATUSES, KINDS, datetime.fromtimestamp
    for row in rows:
        job: Any = _MutableJob()
        (
            job.job_id,
            status,
            job.agent,
            job.agent_session,
            job.prompt,
            job.priority,
            job.topic_prefix,
            broker,
            has_password,
            job.timeout_sec,
            job.idle_timeout_sec,
            artifacts,
            job.last_seq,
            job.attempt,
            job.strikes,
            job.worker,
            lease_until_ms,
            created_ms,
            updated_ms,
            started_ms,
            finished_ms,
            last_event,
            last_event_ms,
            job.detail,
            kid,
            extra,
            _id,
            job.max_attempts,
            not_before_ms,
        ) = row
        job.status = statuses[status]
        job.broker = None if broker is None else broker_from_json(broker, bool(has_password))
        job.expected_artifacts = () if artifacts == "[]" else _artifacts(artifacts)
        job.lease_expires_at = None if lease_until_ms is None else to_datetime(lease_until_ms / 1000, UTC)
        if created_ms != registered_ms:  # the jobs of a batch were registered at the same time
            registered_ms, created = created_ms, to_datetime(created_ms / 1000, UTC)
        job.created_at = created
        # A job's last change is mostly its last event, which may be its end.
        job.updated_at = updated = created if updated_ms == created_ms else to_datetime(updated_ms / 1000, UTC)
        job.started_at = None if started_ms is None else to_datetime(started_ms / 1000, UTC)
        if finished_ms is None:
            job.finished_at = None
        else:
            job.finished_at = updated if finished_ms == updated_ms else to_datetime(finished_ms / 1000, UTC)
        job.last_event = None if last_event is None else kinds[last_event]
        if last_event_ms is None:
            job.last_event_at = None
        else:
            job.last_event_at = updated if last_event_ms == updated_ms else to_datetime(last_event_ms / 1000, UTC)
        job.not_before = None if not_before_ms is None else to_datetime(not_before_ms / 1000, UTC)
        job.auth = "required" if kid else "never"
        job.extra = {} if extra == "{}" else json.loads(extra)
        job.__class__ = Job
        add_job(job)
    return jobs


@lru_cache(maxsize=256)  # a page of jobs expects the same few files
def _artifacts(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
