"""Literal types for arguments that are plain text: mypy reports ``publish(job, "progres")``.

Used by annotations only, in every package, so it is not imported at run time; imports nothing from jobdb. At run time
``jobdb.core.arguments`` checks the same sets.
"""

from __future__ import annotations

from typing import Literal

EventName = Literal["started", "progress", "permission_required", "completed", "error"]
"""The name of an event kind: the values of :class:`jobdb.EventKind`."""

StatusName = Literal["pending", "running", "completed", "error", "cancelled"]
"""The name of a job status: the values of :class:`jobdb.JobStatus`."""

Durability = Literal["full", "normal"]
"""The durability of a commit: it survives a power failure, or only the death of the process."""

StartPoint = Literal["beginning", "now"]
"""The starting point of a new subscriber: the job's first event, or after those already recorded."""

AuthMode = Literal["required", "never"]
"""The authentication mode of a job: its events are always signed, or never."""

ReapAction = Literal["returned", "ended"]
"""The action of ``reap`` on a job: returned to pending, or ended as error."""

TokenState = Literal["current", "overlap", "expired", "revoked"]
"""The state of a token: signing, accepted until its overlap ends, no longer accepted, or revoked."""
