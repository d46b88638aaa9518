"""One line of an event log or audit log: the event that it is, or why it is none.

Called by logs. Pure. The wire protocol's parser decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from ..protocol import MAX_PAYLOAD_BYTES, MalformedPayload, UnsupportedVersion, parse
from .damage import Damage, Damaged, quoted
from .jsontext import parse_object
from .records import parse_time


@dataclass(slots=True)
class LogEvent:
    """One event out of a log, ready for the database.

    Attributes:
        recorded_ms: when its author says it happened, Unix milliseconds.
        digest: SHA-256 of its canonical form.
        text: the line, which is its wire form.
    """

    seq: int
    event: str
    attempt: int | None
    recorded_ms: int
    digest: bytes
    detail: str = field(repr=False)
    text: str = field(repr=False)


def read_line(raw: bytes, job_id: str, *, fallback_ms: int) -> LogEvent | Damaged | None:
    """Reads one line, without its line break.

    Args:
        raw: the line.
        job_id: the job whose log it is.
        fallback_ms: the time of an event whose timestamp names no real moment, Unix milliseconds.

    Returns:
        The event; why it is none though it may have been one; None for a JSON object without a seq or a blank line.
    """
    if not raw or raw.isspace():
        return None
    if len(raw) > MAX_PAYLOAD_BYTES:
        return Damaged(Damage.BAD_LINE, f"is no wire event: it is larger than {MAX_PAYLOAD_BYTES} bytes")
    try:
        wire = parse(raw)
    except MalformedPayload as error:
        reason = error.reason
    except UnsupportedVersion as error:
        reason = str(error)
    else:
        if wire.job_id != job_id:
            return Damaged(Damage.BAD_LINE, f"is about job {quoted(wire.job_id)}")
        recorded_ms = _moment_ms(wire.timestamp, fallback_ms)
        return LogEvent(wire.seq, wire.event.value, wire.attempt, recorded_ms, wire.digest, wire.detail, wire.text)
    document = parse_object(raw)
    if isinstance(document, dict) and "seq" not in document:
        return None
    return Damaged(Damage.BAD_LINE, f"is no wire event: {reason}")


def _moment_ms(timestamp: str, fallback_ms: int) -> int:
    moment = parse_time(timestamp)
    if moment is not None:
        return moment
    try:
        return int(datetime.fromisoformat(timestamp).timestamp() * 1000)
    except (ValueError, OverflowError):
        return fallback_ms
