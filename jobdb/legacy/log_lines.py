"""One line of an event log or audit log: the event that it is, or why it is none.

Called by logs. Pure. The wire protocol's parser decides; the lines of the shape in which the old scripts write nearly
all of them take a shorter way, which gives the same and is tested against the parser.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..model import EventKind
from ..protocol import (
    MAX_DETAIL_CHARS,
    MAX_PAYLOAD_BYTES,
    MAX_SEQ,
    MalformedPayload,
    UnsupportedVersion,
    parse,
)
from .damage import Damage, Damaged, quoted
from .jsontext import decode_plainly, parse_object
from .records import parse_time

Json = Any

_FIELDS = {"schema_version", "seq", "job_id", "event", "timestamp", "detail", "data"}
_KINDS = frozenset(kind.value for kind in EventKind)
_PLAIN_VALUES = (str, bool, type(None))
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


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
    event = _plain_event(raw, job_id)
    if event is not None:
        return event
    if not raw.strip():
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


def _plain_event(raw: bytes, job_id: str) -> LogEvent | None:
    """The event of a line that is plainly one of this job: flat data, small numbers, no claim; None for any other."""
    if not raw.startswith(b'{"') or not raw.endswith(b"}") or b"\r" in raw or len(raw) > MAX_PAYLOAD_BYTES:
        return None
    document = decode_plainly(raw)
    if document is None or document.keys() != _FIELDS:
        return None
    seq, data, detail = document["seq"], document["data"], document["detail"]
    timestamp, event = document["timestamp"], document["event"]
    if (
        type(seq) is not int
        or not 1 <= seq <= MAX_SEQ
        or type(data) is not dict
        or type(detail) is not str
        or len(detail) > MAX_DETAIL_CHARS
        or "\0" in detail
        or type(timestamp) is not str
        or type(event) is not str
        or event not in _KINDS
        or document["job_id"] != job_id
        or type(document["schema_version"]) is not int
        or document["schema_version"] != 1
        or "attempt" in data
        or "hmac_kid" in data
    ):
        return None
    for key, value in data.items():
        kind = type(value)
        small = kind is int and -MAX_SEQ <= value <= MAX_SEQ
        if not key.isascii() or not (small or kind in _PLAIN_VALUES):
            return None
    recorded_ms = parse_time(timestamp)
    signature = data.pop("hmac_sig", "")
    if recorded_ms is None or type(signature) is not str or not signature.isascii():
        return None
    try:
        message = _canonical(document).encode("utf-8")
    except UnicodeEncodeError:
        return None
    text = raw.decode("utf-8")
    return LogEvent(seq, event, None, recorded_ms, hashlib.sha256(message).digest(), detail, text)


def _moment_ms(timestamp: str, fallback_ms: int) -> int:
    try:
        return int(datetime.fromisoformat(timestamp).timestamp() * 1000)
    except (ValueError, OverflowError):
        return fallback_ms
