"""The values that arguments take as plain text, as types: mypy reports ``publish(job, "progres")``.

At run time ``jobdb.core.arguments`` checks the same sets. Annotations are all that uses these names within jobdb, so a
program that only runs does not import this file.
"""

from __future__ import annotations

from typing import Literal

EventName = Literal["started", "progress", "permission_required", "completed", "error"]
"""The name of an event; the values of :class:`jobdb.EventKind`."""

StatusName = Literal["pending", "running", "completed", "error", "cancelled"]
"""The name of a job's status; the values of :class:`jobdb.JobStatus`."""

Durability = Literal["full", "normal"]
"""What a commit survives before it is answered: a power failure, or the death of the process."""

StartPoint = Literal["beginning", "now"]
"""Where a new subscriber begins: at the first event of the job, or after those that are recorded."""

AuthMode = Literal["required", "never"]
"""Whether the events of a job are signed."""

ReapAction = Literal["returned", "ended"]
"""What ``reap`` did to a job: returned it to pending, or ended it as error."""

TokenState = Literal["current", "overlap", "expired", "revoked"]
"""The state of a token: it signs, it is accepted until its overlap ends, it is no longer accepted, it was revoked."""
