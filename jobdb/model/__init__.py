"""The public records that verbs take and return.

Used by every package and by applications; the records import only their neighbours here. Records are frozen
dataclasses. Two are equal if all their fields are. All are hashable, although some contain mappings: the hash uses only
the fields that identify the record. Each ``repr`` is one line without secrets, long texts truncated.

Creating a dataclass takes a millisecond, and an agent runs the command line once per event, so each module here is
imported only when one of its names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .enums import EventKind, JobStatus, Verdict
    from .events import Event, NewEvent
    from .jobs import Broker, Claim, Job, JobFilter, NewJob, Reaped
    from .literals import AuthMode, Durability, EventName, ReapAction, StartPoint, StatusName, TokenState
    from .observing import Acceptance, Arrival, Delivery, Refusal, Subscription
    from .pages import Page, cut_page
    from .questions import Question
    from .times import format_time, from_ms
    from .tokens import TokenInfo
    from .work import Attempt, AttemptKey, GiveBack, WorkBatch, WorkerInfo, WorkerRecord, WorkResult

_HOMES = {
    "Event": "events",
    "NewEvent": "events",
    "Broker": "jobs",
    "Claim": "jobs",
    "Job": "jobs",
    "JobFilter": "jobs",
    "NewJob": "jobs",
    "Reaped": "jobs",
    "AuthMode": "literals",
    "Durability": "literals",
    "EventName": "literals",
    "ReapAction": "literals",
    "StartPoint": "literals",
    "StatusName": "literals",
    "TokenState": "literals",
    "EventKind": "enums",
    "JobStatus": "enums",
    "Verdict": "enums",
    "Acceptance": "observing",
    "Arrival": "observing",
    "Delivery": "observing",
    "Refusal": "observing",
    "Subscription": "observing",
    "Page": "pages",
    "Question": "questions",
    "cut_page": "pages",
    "format_time": "times",
    "from_ms": "times",
    "TokenInfo": "tokens",
    "Attempt": "work",
    "AttemptKey": "work",
    "GiveBack": "work",
    "WorkBatch": "work",
    "WorkResult": "work",
    "WorkerInfo": "work",
    "WorkerRecord": "work",
}

__all__ = [
    "Acceptance",
    "Arrival",
    "Attempt",
    "AttemptKey",
    "AuthMode",
    "Broker",
    "Claim",
    "Delivery",
    "Durability",
    "Event",
    "EventKind",
    "EventName",
    "GiveBack",
    "Job",
    "JobFilter",
    "JobStatus",
    "NewEvent",
    "NewJob",
    "Page",
    "Question",
    "ReapAction",
    "Reaped",
    "Refusal",
    "StartPoint",
    "StatusName",
    "Subscription",
    "TokenInfo",
    "TokenState",
    "Verdict",
    "WorkBatch",
    "WorkResult",
    "WorkerInfo",
    "WorkerRecord",
    "cut_page",
    "format_time",
    "from_ms",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        value = getattr(import_module(f".{home}", __name__), name)
    except OSError as error:
        from ..system.descriptor_shortage import is_shortage, shortage_error

        if is_shortage(error):
            raise shortage_error(error) from error
        raise
    globals()[name] = value
    return value
