"""What there is about a job: the record, what registers one, a claim, what reap did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .enums import EventKind, JobStatus
from .times import format_time


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a job's events are published. The password is sealed in the database and never part of this."""

    host: str
    port: int = 1883
    tls: bool = False
    username: str | None = None
    has_password: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "port": self.port,
            "tls": self.tls,
            "username": self.username,
            "has_password": self.has_password,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One delegated piece of work, as the database holds it.

    Times are aware UTC datetimes with millisecond resolution.
    """

    job_id: str
    status: JobStatus
    agent: str
    agent_session: str | None
    prompt: str
    priority: int
    topic_prefix: str
    broker: Broker | None
    timeout_sec: int
    idle_timeout_sec: int
    expected_artifacts: tuple[str, ...]
    last_seq: int
    attempt: int
    strikes: int
    worker: str | None
    lease_expires_at: datetime | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    last_event: EventKind | None
    last_event_at: datetime | None
    detail: str | None
    auth: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def terminal(self) -> bool:
        return self.status.terminal

    @property
    def topic(self) -> str:
        """The MQTT topic of the job's events."""
        return self.topic_prefix + "/events"

    def as_dict(self) -> dict[str, Any]:
        """The job as JSON-ready values, under the stable names of the command line's --json."""
        return {
            "schema_version": 1,
            "job_id": self.job_id,
            "status": self.status.value,
            "agent": self.agent,
            "agent_session": self.agent_session,
            "prompt": self.prompt,
            "priority": self.priority,
            "topic_prefix": self.topic_prefix,
            "broker": self.broker.as_dict() if self.broker else None,
            "timeout_sec": self.timeout_sec,
            "idle_timeout_sec": self.idle_timeout_sec,
            "expected_artifacts": list(self.expected_artifacts),
            "last_seq": self.last_seq,
            "attempt": self.attempt,
            "strikes": self.strikes,
            "worker": self.worker,
            "lease_expires_at": format_time(self.lease_expires_at),
            "created_at": format_time(self.created_at),
            "updated_at": format_time(self.updated_at),
            "started_at": format_time(self.started_at),
            "finished_at": format_time(self.finished_at),
            "last_event": self.last_event.value if self.last_event else None,
            "last_event_at": format_time(self.last_event_at),
            "detail": self.detail,
            "auth": self.auth,
            "extra": dict(self.extra),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to register; the arguments of ``Registry.register``, which documents them."""

    agent: str
    prompt: str
    job_id: str | None = None
    agent_session: str | None = None
    priority: int = 0
    topic_prefix: str | None = None
    broker: Broker | None = None
    broker_password: str | None = field(default=None, repr=False)
    timeout_sec: int = 3600
    idle_timeout_sec: int = 120
    expected_artifacts: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    auth: str = "required"
    auth_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a listing shows. None means any."""

    statuses: tuple[JobStatus, ...] = ()
    agent: str | None = None
    agent_session: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A job in the hands of one worker. ``attempt`` is the fencing number to publish and renew with."""

    job: Job
    attempt: int
    worker: str
    lease_expires_at: datetime | None

    @property
    def job_id(self) -> str:
        return self.job.job_id


@dataclass(frozen=True, slots=True)
class Reaped:
    """What reap did to one job: ``action`` is "returned" (to pending) or "ended" (as error)."""

    job_id: str
    action: str
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "action": self.action, "reason": self.reason}
