"""Enumerations: the statuses of a job, the kinds of an event, the verdicts of ``accept``.

Used by every package, as names of ``jobdb.model``; imports nothing from jobdb.
"""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """The status of a job. The last three are terminal."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    ERROR = "error"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """True if the job has ended; no event or verb changes its status again."""
        return self in _TERMINAL_STATUSES


class EventKind(StrEnum):
    """The kind of an event that an agent publishes about its job. The last two are terminal."""

    STARTED = "started"
    PROGRESS = "progress"
    PERMISSION_REQUIRED = "permission_required"
    COMPLETED = "completed"
    ERROR = "error"

    @property
    def terminal(self) -> bool:
        """True if the event ends its job."""
        return self in (EventKind.COMPLETED, EventKind.ERROR)


class Verdict(StrEnum):
    """The verdict of ``accept`` on an event, in the order of its checks."""

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
        """True if the event was accepted neither now nor before."""
        return self not in (Verdict.ACCEPTED, Verdict.DUPLICATE)


_TERMINAL_STATUSES = frozenset({JobStatus.COMPLETED, JobStatus.ERROR, JobStatus.CANCELLED})
