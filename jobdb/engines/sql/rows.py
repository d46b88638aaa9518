"""From rows to the public objects, and the small conversions that all verbs share."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ... import model
from ...model import EventKind, JobStatus, from_ms

if TYPE_CHECKING:
    from ...model import Broker, Event, Job, NewJob
    from .transaction import Row

# A lookup costs a tenth of what calling the enumeration does, and a page of jobs does it hundreds of times.
STATUSES = {status.value: status for status in JobStatus}
KINDS = {kind.value: kind for kind in EventKind}


def job_from_row(row: Row) -> Job:
    """A row of the view ``job_records``."""
    (
        job_id,
        status,
        agent,
        agent_session,
        prompt,
        priority,
        topic_prefix,
        broker,
        has_password,
        timeout_sec,
        idle_timeout_sec,
        expected_artifacts,
        last_seq,
        attempt,
        strikes,
        worker,
        lease_until_ms,
        created_ms,
        updated_ms,
        started_ms,
        finished_ms,
        last_event,
        last_event_ms,
        detail,
        kid,
        extra,
        _number,
    ) = row
    created_at, updated_at = from_ms(created_ms), from_ms(updated_ms)
    assert created_at is not None and updated_at is not None
    return model.Job(
        job_id=job_id,
        status=STATUSES[status],
        agent=agent,
        agent_session=agent_session,
        prompt=prompt,
        priority=priority,
        topic_prefix=topic_prefix,
        broker=broker_from_text(broker, bool(has_password)),
        timeout_sec=timeout_sec,
        idle_timeout_sec=idle_timeout_sec,
        expected_artifacts=() if expected_artifacts == "[]" else tuple(json.loads(expected_artifacts)),
        last_seq=last_seq,
        attempt=attempt,
        strikes=strikes,
        worker=worker,
        lease_expires_at=from_ms(lease_until_ms),
        created_at=created_at,
        updated_at=updated_at,
        started_at=from_ms(started_ms),
        finished_at=from_ms(finished_ms),
        last_event=None if last_event is None else KINDS[last_event],
        last_event_at=from_ms(last_event_ms),
        detail=detail,
        auth="required" if kid else "never",
        extra={} if extra == "{}" else json.loads(extra),
    )


def default_topic_prefix(job_id: str) -> str:
    """Under which topic a job's events go when it was registered with none."""
    return f"jobdb/jobs/{job_id}"


def job_of_new(job_id: str, new: NewJob, now_ms: int, *, artifacts: str, extra: str) -> Job:
    """What reading a job gives that was registered just now; ``artifacts`` and ``extra`` as they were stored."""
    now = from_ms(now_ms)
    assert now is not None
    broker = new.broker
    if broker is not None:
        broker = replace(broker, has_password=new.broker_password is not None)
    return model.Job(
        job_id=job_id,
        status=JobStatus.PENDING,
        agent=new.agent,
        agent_session=new.agent_session,
        prompt=new.prompt,
        priority=new.priority,
        topic_prefix=new.topic_prefix or default_topic_prefix(job_id),
        broker=broker,
        timeout_sec=new.timeout_sec,
        idle_timeout_sec=new.idle_timeout_sec,
        expected_artifacts=() if artifacts == "[]" else tuple(json.loads(artifacts)),
        last_seq=0,
        attempt=0,
        strikes=0,
        worker=None,
        lease_expires_at=None,
        created_at=now,
        updated_at=now,
        started_at=None,
        finished_at=None,
        last_event=None,
        last_event_at=None,
        detail=None,
        auth="never" if new.auth == "never" else "required",
        extra={} if extra == "{}" else json.loads(extra),
    )


@lru_cache(maxsize=256)  # a page of jobs names the same few brokers
def broker_from_text(text: str | None, has_password: bool) -> Broker | None:
    """The broker settings as stored, without the password."""
    if text is None:
        return None
    stored = json.loads(text)
    return model.Broker(
        host=stored["host"],
        port=stored.get("port", 1883),
        tls=stored.get("tls", False),
        username=stored.get("username"),
        has_password=has_password,
    )


def broker_to_text(broker: Broker | None) -> str | None:
    """The broker settings for storing; the password goes elsewhere, sealed."""
    if broker is None:
        return None
    return json.dumps({"host": broker.host, "port": broker.port, "tls": broker.tls, "username": broker.username})


def event_from_row(row: Row) -> Event:
    """A row of job_id, seq, event, attempt, recorded_ms, payload."""
    job_id, seq, kind, attempt, recorded_ms, payload = row
    wire: dict[str, Any] = json.loads(payload)
    recorded_at = from_ms(recorded_ms)
    assert recorded_at is not None
    return model.Event(
        job_id=job_id,
        seq=seq,
        event=KINDS[kind],
        timestamp=wire["timestamp"],
        detail=wire.get("detail") or "",
        data=wire.get("data") or {},
        attempt=attempt,
        recorded_at=recorded_at,
        payload=payload,
    )


_last_second = (-1, "")


def wire_timestamp(now_ms: int) -> str:
    """``2026-06-19T09:32:00Z``. The last second's text is kept: a busy publisher asks for it thousands of times."""
    global _last_second
    second = now_ms // 1000
    if _last_second[0] != second:
        _last_second = (second, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)))
    return _last_second[1]


def token_binding(job_id: str, kid: int) -> str:
    """What a sealed token is bound to: it opens in no other row."""
    return f"token {kid} of {job_id}"


def password_binding(job_id: str) -> str:
    """What a sealed broker password is bound to."""
    return f"broker password of {job_id}"


def shorten(text: str, most: int = 1000) -> str:
    """At most ``most`` characters, fit for a column: PostgreSQL's text holds no NUL."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= most else text[: most - 1] + "…"
