"""From rows to the public objects, jobs excepted (job_rows.py), and back to what a column takes."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ... import model
from ...model import EventKind, JobStatus, from_ms

if TYPE_CHECKING:
    from ...model import Broker, Event
    from ..store import Row

CLOCK_SLACK_MS = 60_000
"""How much later than now a moment may be, in milliseconds: hosts' clocks differ, and are set back by seconds."""

# A lookup costs a tenth of what calling the enumeration does, and a page of jobs does it hundreds of times.
STATUSES = {status.value: status for status in JobStatus}
KINDS = {kind.value: kind for kind in EventKind}


def default_topic_prefix(job_id: str) -> str:
    """Return the topic prefix of a job that was registered with none."""
    return f"jobdb/jobs/{job_id}"


@lru_cache(maxsize=256)  # a page of jobs names the same few brokers
def broker_from_json(text: str | None, has_password: bool) -> Broker | None:
    """Return the broker settings of a job as stored, without the password."""
    if text is None:
        return None
    stored = json.loads(text)
    return model.Broker(
        host=stored["host"],
        port=stored.get("port", 1883),
        tls=stored.get("tls", False),
        username=stored.get("username"),
        has_password=has_password,
    )


def broker_to_json(broker: Broker | None) -> str | None:
    """Return the broker settings for storing; the password goes elsewhere, sealed."""
    if broker is None:
        return None
    return json.dumps({"host": broker.host, "port": broker.port, "tls": broker.tls, "username": broker.username})


def event_from_row(row: Row) -> Event:
    """Return the event of a row of job_id, seq, event, attempt, recorded_ms and payload."""
    job_id, seq, kind, attempt, recorded_ms, payload = row
    wire: dict[str, Any] = json.loads(payload)
    recorded_at = from_ms(recorded_ms)
    assert recorded_at is not None
    return model.Event(
        job_id=job_id,
        seq=seq,
        event=KINDS[kind],
        timestamp=wire["timestamp"],
        detail=wire.get("detail") or "",
        data=wire.get("data") or {},
        attempt=attempt,
        recorded_at=recorded_at,
        payload=payload,
    )


def overlap_is_over(
    expires_ms: int | None, overlap_ms: int | None, ended_ms: int | None, *, now_ms: int, updated_ms: int
) -> bool:
    """Tell whether a token that was rotated out is valid no more.

    Args:
        expires_ms: the end of the overlap, Unix milliseconds; None: it has none.
        overlap_ms: the length of the overlap. An end later than now plus that is void: a clock was ahead when it was
            computed.
        ended_ms: when it was first seen that the overlap is over.
        now_ms: this moment.
        updated_ms: when the job was changed last. If the end had come by then it stays over, whatever the clock says.
    """
    if expires_ms is None:
        return False
    if ended_ms is not None or expires_ms <= max(now_ms, updated_ms):
        return True
    return overlap_ms is not None and expires_ms - overlap_ms > now_ms + CLOCK_SLACK_MS


def shorten(text: str, most: int = 1000) -> str:
    """Return at most ``most`` characters, fit for a column of every database: PostgreSQL's text holds no NUL."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= most else text[: most - 1] + "…"
