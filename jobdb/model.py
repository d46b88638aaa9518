"""The public objects: what the verbs take and return. Frozen, no behaviour beyond their own shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

Json = Any


class JobStatus(StrEnum):
    """Where a job is in its life. The last three are terminal."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL_STATUSES


class EventKind(StrEnum):
    """What an agent says about its job. The last two are terminal."""

    STARTED = "started"
    PROGRESS = "progress"
    PERMISSION_REQUIRED = "permission_required"
    COMPLETED = "completed"
    ERROR = "error"

    @property
    def terminal(self) -> bool:
        return self in (EventKind.COMPLETED, EventKind.ERROR)


class Verdict(StrEnum):
    """The answer of accept, in the order of its checks."""

    MALFORMED = "malformed"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNKNOWN_JOB = "unknown_job"
    WRONG_TOPIC = "wrong_topic"
    UNSIGNED = "unsigned"
    REVOKED_KEY = "revoked_key"
    BAD_SIGNATURE = "bad_signature"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REPLAYED = "replayed"
    STALE_ATTEMPT = "stale_attempt"
    AFTER_TERMINAL = "after_terminal"
    ACCEPTED = "accepted"

    @property
    def refused(self) -> bool:
        """Neither accepted now nor accepted before."""
        return self not in (Verdict.ACCEPTED, Verdict.DUPLICATE)


_TERMINAL_STATUSES = frozenset({JobStatus.COMPLETED, JobStatus.ERROR, JobStatus.CANCELLED})


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a job's events are published. The password is sealed in the database and never part of this."""

    host: str
    port: int = 1883
    tls: bool = False
    username: str | None = None
    has_password: bool = False

    def as_dict(self) -> dict[str, Json]:
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
    extra: Mapping[str, Json] = field(default_factory=dict)

    @property
    def terminal(self) -> bool:
        return self.status.terminal

    @property
    def topic(self) -> str:
        """The MQTT topic of the job's events."""
        return self.topic_prefix + "/events"

    def as_dict(self) -> dict[str, Json]:
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
    extra: Mapping[str, Json] = field(default_factory=dict)
    idempotency_key: str | None = None
    auth: str = "required"
    auth_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to publish; the arguments of ``Registry.publish``, which documents them."""

    job_id: str
    event: EventKind
    detail: str = ""
    data: Mapping[str, Json] = field(default_factory=dict)
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A wire payload as it came in, and the topic it came on where there was one."""

    payload: bytes | str | Mapping[str, Json] = field(repr=False)
    topic: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a listing shows. None means any."""

    statuses: tuple[JobStatus, ...] = ()
    agent: str | None = None
    agent_session: str | None = None


@dataclass(frozen=True, slots=True)
class Reaped:
    """What reap did to one job: ``action`` is "returned" (to pending) or "ended" (as error)."""

    job_id: str
    action: str
    reason: str

    def as_dict(self) -> dict[str, Json]:
        return {"job_id": self.job_id, "action": self.action, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event that waits for the broker. ``number`` names it to ``mark_delivered``."""

    number: int
    job_id: str
    seq: int
    event: EventKind
    topic: str
    payload: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscriber's numbers for one job."""

    subscriber: str
    job_id: str
    job_status: JobStatus
    start_seq: int
    last_seq: int
    handled_seq: int
    job_last_seq: int
    last_event_at: datetime | None

    def as_dict(self) -> dict[str, Json]:
        return {
            "subscriber": self.subscriber,
            "job_id": self.job_id,
            "job_status": self.job_status.value,
            "start_seq": self.start_seq,
            "last_seq": self.last_seq,
            "handled_seq": self.handled_seq,
            "job_last_seq": self.job_last_seq,
            "last_event_at": format_time(self.last_event_at),
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """An authentic event that was refused, as recorded."""

    number: int
    job_id: str
    subscriber: str
    verdict: Verdict
    seq: int
    recorded_at: datetime
    reason: str

    def as_dict(self) -> dict[str, Json]:
        return {
            "number": self.number,
            "job_id": self.job_id,
            "subscriber": self.subscriber,
            "verdict": self.verdict.value,
            "seq": self.seq,
            "recorded_at": format_time(self.recorded_at),
            "reason": self.reason,
        }


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One recorded event. ``payload`` is the wire form exactly as it is sent, on one line."""

    job_id: str
    seq: int
    event: EventKind
    timestamp: str
    detail: str
    data: Mapping[str, Json]
    attempt: int | None
    recorded_at: datetime
    payload: str = field(repr=False)

    def as_dict(self) -> dict[str, Json]:
        """The event as JSON-ready values, under the stable names of the command line's --json."""
        return {
            "job_id": self.job_id,
            "seq": self.seq,
            "event": self.event.value,
            "timestamp": self.timestamp,
            "detail": self.detail,
            "data": dict(self.data),
            "attempt": self.attempt,
            "recorded_at": format_time(self.recorded_at),
        }


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What accept answered.

    Attributes:
        verdict: the answer.
        job_id: the job that the payload names; None when it could not be read.
        seq: the event's number; None when it could not be read.
        event: the stored event, when it was accepted now or before.
        missing: the seqs that were skipped over to accept this one.
        reason: one sentence for a person; empty when accepted.
    """

    verdict: Verdict
    job_id: str | None = None
    seq: int | None = None
    event: Event | None = None
    missing: range = range(0)
    reason: str = ""

    def as_dict(self, *, most_missing: int = 1000) -> dict[str, Json]:
        """JSON-ready; ``missing`` lists at most ``most_missing`` seqs and ``missing_count`` counts all."""
        return {
            "verdict": self.verdict.value,
            "job_id": self.job_id,
            "seq": self.seq,
            "missing": list(self.missing[:most_missing]),
            "missing_count": self.missing.stop - self.missing.start if self.missing else 0,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token's life, without the token."""

    job_id: str
    kid: int
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    imported: bool
    state: str

    def as_dict(self) -> dict[str, Json]:
        return {
            "job_id": self.job_id,
            "kid": self.kid,
            "state": self.state,
            "created_at": format_time(self.created_at),
            "expires_at": format_time(self.expires_at),
            "revoked_at": format_time(self.revoked_at),
            "imported": self.imported,
        }


def from_ms(ms: int | None) -> datetime | None:
    """Unix milliseconds as an aware UTC datetime."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def format_time(moment: datetime | None) -> str | None:
    """``2026-06-19T09:32:00Z``: the old registry's form; a fraction only where there is one."""
    if moment is None:
        return None
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if moment.microsecond:
        return f"{text}.{moment.microsecond // 1000:03d}Z"
    return text + "Z"
