"""The public objects: what the verbs take and return. Frozen, no behaviour beyond their own shape.

Making a dataclass takes a millisecond, and an agent runs the command line once an event: so each module here is
imported when one of its names is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .enums import EventKind, JobStatus, Verdict
    from .events import Event, NewEvent
    from .jobs import Broker, Claim, Job, JobFilter, NewJob, Reaped
    from .observing import Acceptance, Arrival, Delivery, Refusal, Subscription
    from .times import format_time, from_ms
    from .tokens import TokenInfo

_HOMES = {
    "Event": "events",
    "NewEvent": "events",
    "Broker": "jobs",
    "Claim": "jobs",
    "Job": "jobs",
    "JobFilter": "jobs",
    "NewJob": "jobs",
    "Reaped": "jobs",
    "EventKind": "enums",
    "JobStatus": "enums",
    "Verdict": "enums",
    "Acceptance": "observing",
    "Arrival": "observing",
    "Delivery": "observing",
    "Refusal": "observing",
    "Subscription": "observing",
    "format_time": "times",
    "from_ms": "times",
    "TokenInfo": "tokens",
}

__all__ = [
    "Acceptance",
    "Arrival",
    "Broker",
    "Claim",
    "Delivery",
    "Event",
    "EventKind",
    "Job",
    "JobFilter",
    "JobStatus",
    "NewEvent",
    "NewJob",
    "Reaped",
    "Refusal",
    "Subscription",
    "TokenInfo",
    "Verdict",
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
