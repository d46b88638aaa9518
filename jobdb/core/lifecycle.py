"""The lifecycle of a job: the table of its transitions.

Called by the verbs of the engines (:func:`next_status`), in the transaction that changes a job. Pure: imports only
``model``. The drop-in module for old scripts reads the table, and the diagram in the docs is generated from it.
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
"""(status, trigger) → next status. A trigger is a verb or the kind of an event. Any other transition is illegal."""


def next_status(status: JobStatus, trigger: str) -> JobStatus | None:
    """Return the status to which ``trigger`` leads from ``status``; None if the transition is illegal."""
    return TRANSITIONS.get((status, trigger))
