"""The closed sets: a job's statuses, an event's kinds, the verdicts of accept."""

from __future__ import annotations

from enum import StrEnum


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
