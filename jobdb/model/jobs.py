"""Jobs: the record, the registration, a claim, and the result of ``reap``.

Used by every package, as names of ``jobdb.model``; imports only its neighbours here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .enums import EventKind, JobStatus
from .times import format_time

if TYPE_CHECKING:
    from .literals import AuthMode, ReapAction


@dataclass(frozen=True, slots=True)
class Broker:
    """The MQTT broker to which the events of a job are published.

    Attributes:
        host: its host name or address.
        port: its port.
        tls: True to connect with TLS.
        username: the user name to connect with.
        has_password: True if a password is stored. It is sealed in the database and never part of this object.
    """

    host: str
    port: int = 1883
    tls: bool = False
    username: str | None = None
    has_password: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the broker as JSON-ready values."""
        return {
            "host": self.host,
            "port": self.port,
            "tls": self.tls,
            "username": self.username,
            "has_password": self.has_password,
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Job:
    """A delegated piece of work, as it was in the database when it was read.

    Two are equal if all their fields are: the same job in the same state. Times are aware UTC datetimes with
    millisecond resolution.

    Attributes:
        job_id: its id.
        status: its status.
        agent: the agent that should do it.
        agent_session: the agent's session that it is meant for.
        prompt: the task.
        priority: jobs of higher priority are claimed first.
        topic_prefix: its events go to the MQTT topic ``<topic_prefix>/events``.
        broker: where its events are delivered; None if they stay in the database.
        timeout_sec: how long it may run, in seconds; 0 means no limit.
        idle_timeout_sec: how long it may go without a sign of life, in seconds; 0 means no limit. A live lease and an
            open question protect it from this limit.
        expected_artifacts: relative paths of the files that it should create.
        last_seq: the highest seq of its events; 0 before the first.
        attempt: how many times it was claimed; the fencing number of the last claim.
        strikes: how many of its tries were used up, by expired leases and by failures.
        max_attempts: how many tries it has; None: three expired leases, and the first failure is final.
        not_before: when it can be claimed again; None if it can be now, or is not pending.
        worker: the worker that holds its claim, or held it when the job ended.
        lease_expires_at: when the lease of the current claim expires; None if never, or if there is no claim.
        created_at: when it was registered.
        updated_at: when it was last changed.
        started_at: when it was last claimed; its time limits count from then.
        finished_at: when it ended.
        last_event: the kind of the last event.
        last_event_at: when the last event was recorded.
        detail: the beginning of the last event's detail, or why the job was ended or returned.
        auth: "required" if its events are signed, "never" if not.
        extra: further fields, as given.
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
    auth: AuthMode
    max_attempts: int | None = None
    not_before: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.job_id, self.status, self.last_seq, self.attempt))

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self, "job_id", "status", "agent", "attempt", "last_seq", "prompt")

    @property
    def terminal(self) -> bool:
        """True if the job has ended: completed, error or cancelled."""
        return self.status.terminal

    @property
    def topic(self) -> str:
        """The MQTT topic of the job's events."""
        return self.topic_prefix + "/events"

    def as_dict(self) -> dict[str, Any]:
        """Return the job as JSON-ready values, under the stable names of the command line's --json."""
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
            "max_attempts": self.max_attempts,
            "not_before": format_time(self.not_before),
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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NewJob:
    """A job to register; its fields are the arguments of ``Registry.register``, which documents them."""

    agent: str
    prompt: str
    job_id: str | None = None
    agent_session: str | None = None
    priority: int = 0
    topic_prefix: str | None = None
    broker: Broker | None = None
    broker_password: str | None = field(default=None, repr=False)
    timeout_sec: int = 3600
    idle_timeout_sec: int = 0
    max_attempts: int | None = None
    expected_artifacts: tuple[str, ...] | list[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    auth: AuthMode = "required"
    auth_token: str | None = field(default=None, repr=False)

    def __hash__(self) -> int:
        return hash((self.agent, self.prompt, self.job_id, self.idempotency_key))

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """The criteria for listing jobs. Empty and None mean any."""

    statuses: tuple[JobStatus, ...] = ()
    agent: str | None = None
    agent_session: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Claim:
    """The right of one worker to work on a job.

    Attributes:
        job: the job as it was when the claim was made or renewed.
        attempt: the fencing number to publish, renew and release with.
        worker: the worker that holds the claim.
        lease_expires_at: when the claim expires unless it is renewed; None if never.
    """

    job: Job
    attempt: int
    worker: str
    lease_expires_at: datetime | None

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self, "job_id", "attempt", "worker", "lease_expires_at")

    @property
    def job_id(self) -> str:
        """The id of the claimed job."""
        return self.job.job_id


@dataclass(frozen=True, slots=True)
class Reaped:
    """A job that ``reap`` changed.

    Attributes:
        job_id: the id of the job.
        action: "returned" if it is pending again, "ended" if it ended as error.
        reason: a sentence for people.
    """

    job_id: str
    action: ReapAction
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return this as JSON-ready values, under the stable names of the command line's --json."""
        return {"job_id": self.job_id, "action": self.action, "reason": self.reason}
