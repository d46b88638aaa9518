"""The life of a job: one pure table. The engines obey it, the docs' diagram is drawn from it.

Nothing here touches a database, a clock, a file or the network.
"""

from __future__ import annotations

from ..model import JobStatus

PENDING, RUNNING, COMPLETED, ERROR, CANCELLED = JobStatus

TRANSITIONS: dict[tuple[JobStatus, str], JobStatus] = {
    (PENDING, "claim"): RUNNING,
    (PENDING, "cancel"): CANCELLED,
    (PENDING, "started"): RUNNING,
    (PENDING, "progress"): RUNNING,
    (PENDING, "permission_required"): RUNNING,
    (PENDING, "completed"): COMPLETED,
    (PENDING, "error"): ERROR,
    (RUNNING, "release"): PENDING,
    (RUNNING, "lease_expired"): PENDING,
    (RUNNING, "cancel"): CANCELLED,
    (RUNNING, "started"): RUNNING,
    (RUNNING, "progress"): RUNNING,
    (RUNNING, "permission_required"): RUNNING,
    (RUNNING, "completed"): COMPLETED,
    (RUNNING, "error"): ERROR,
}
"""(status, trigger) → next status. A trigger is a verb or an event's kind. What is not here is illegal."""


def next_status(status: JobStatus, trigger: str) -> JobStatus | None:
    """Where ``trigger`` leads from ``status``; None when the transition is illegal."""
    return TRANSITIONS.get((status, trigger))
