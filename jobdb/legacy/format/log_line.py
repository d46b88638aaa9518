"""The parser of a line of an event log or audit log: returns the event, or the reason why it is not one.

Called by the reader of logs. Pure. The wire protocol's parser is authoritative. Two fast paths, compared with it by
property tests, give the same result for nearly all lines: `parse_flat_line`, for lines without nesting or an escape,
takes a quarter of its time; `match_flat_line`, for fields in the order that every known script uses, an eighth.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

from ...core.protocol import MAX_PAYLOAD_BYTES, MalformedPayload, UnsupportedVersion, parse
from ...core.protocol.limits import MAX_DETAIL_CHARS, MAX_KID, MAX_SEQ, SCHEMA_VERSION
from ...model import EventKind
from .damage import Damaged, DamageKind, quoted
from .strict_json import parse_object
from .timestamps import parse_time


class LogEvent(NamedTuple):
    """An event from a log, ready for the database.

    Attributes:
        recorded_ms: the time that its author gives, Unix milliseconds.
        digest: SHA-256 of its canonical form.
        payload: the line, which is its wire form.
    """

    seq: int
    event: str
    attempt: int | None
    recorded_ms: int
    digest: bytes
    payload: str
    detail: str

    def __repr__(self) -> str:
        return f"<LogEvent {self.seq} {self.event}>"


def parse_line(raw: bytes, job_id: str, *, fallback_ms: int) -> LogEvent | Damaged | None:
    """Parse one line, without its line break.

    Args:
        raw: the line.
        job_id: the job whose log it is.
        fallback_ms: the time of an event with an invalid timestamp, Unix milliseconds.

    Returns:
        The event; or why a line that looks like one is not; or None for a JSON object without a seq or a blank line.
    """
    usual = parse_flat_line(raw, job_id, fallback_ms=fallback_ms)
    if usual is not None:
        return usual
    if not raw or raw.isspace():
        return None
    if len(raw) > MAX_PAYLOAD_BYTES:
        return Damaged(DamageKind.BAD_LINE, f"is not a wire event: it is larger than {MAX_PAYLOAD_BYTES} bytes")
    try:
        wire = parse(raw)
    except MalformedPayload as error:
        reason = error.reason
    except UnsupportedVersion as error:
        reason = str(error)
    else:
        if wire.job_id != job_id:
            return Damaged(DamageKind.BAD_LINE, f"is about job {quoted(wire.job_id)}")
        recorded_ms = _moment_ms(wire.timestamp, fallback_ms)
        return LogEvent(wire.seq, wire.event.value, wire.attempt, recorded_ms, wire.digest, wire.text, wire.detail)
    if is_other_object(raw):
        return None
    return Damaged(DamageKind.BAD_LINE, f"is not a wire event: {reason}")


def is_other_object(raw: bytes) -> bool:
    """Return whether a line that is not an event is a JSON object without a seq, as the audit log has some."""
    if not raw.lstrip().startswith(b"{"):
        return False
    document = parse_object(raw)
    return isinstance(document, dict) and "seq" not in document


_KINDS = frozenset(kind.value for kind in EventKind)
_FIELDS = {"schema_version", "seq", "job_id", "event", "timestamp", "detail", "data"}
_TEXTS_AND_FIELDS = 11
"""The number of strings in a payload outside its data: the names of its seven fields, and four values."""

_JSON_OF = {True: "true", False: "false", None: "null"}
_scan = json.JSONDecoder().raw_decode
_values = itemgetter("schema_version", "seq", "job_id", "event", "timestamp", "detail", "data")


def parse_flat_line(raw: bytes, job_id: str, *, fallback_ms: int) -> LogEvent | None:
    """Return the event of a flat line; None for any other line, which may still be an event.

    A flat line has only the protocol's fields, data without objects, lists or fractions, and no backslash. Without a
    backslash each string in the line has exactly two quotation marks, so a duplicate key, which decoding drops, shows
    in their count; and no string needs an escape in the canonical form.
    """
    if raw[:1] != b"{" or b"\\" in raw or b"\r" in raw or b"\n" in raw or len(raw) > MAX_PAYLOAD_BYTES:
        return None
    try:
        line = str(raw, "utf-8")
        written = match_flat_line(line, job_id)
        if written is not None:
            return written
        payload, end = _scan(line)
    except (ValueError, RecursionError):
        return None
    if end != len(line) or payload.keys() != _FIELDS:
        return None
    version, seq, named, event, timestamp, detail, data = _values(payload)
    if not (
        type(version) is int
        and version == SCHEMA_VERSION
        and type(seq) is int
        and 1 <= seq <= MAX_SEQ
        and named == job_id
        and type(event) is str
        and event in _KINDS
        and type(timestamp) is str
        and type(detail) is str
        and len(detail) <= MAX_DETAIL_CHARS
        and type(data) is dict
    ):
        return None
    recorded_ms = parse_time(timestamp)
    if recorded_ms is None:
        return None
    texts = _TEXTS_AND_FIELDS + len(data)
    members = []
    for key in sorted(data):
        value = data[key]
        kind = type(value)
        if kind is str:
            texts += 1
            if key == "hmac_sig":
                continue
            members.append(f'"{key}":"{value}"')
        elif kind is int:
            if not -MAX_SEQ <= value <= MAX_SEQ:
                return None
            members.append(f'"{key}":{value}')
        elif value is None or kind is bool:
            members.append(f'"{key}":{_JSON_OF[value]}')
        else:
            return None
    if raw.count(b'"') != 2 * texts or not (line.isascii() or "".join(data).isascii()):
        return None
    attempt = data.get("attempt")
    if attempt is None:
        if "attempt" in data:
            return None
    elif type(attempt) is not int or attempt < 1:
        return None
    if "hmac_kid" in data:
        kid = data["hmac_kid"]
        if type(kid) is not int or not 1 <= kid <= MAX_KID:
            return None
    if "hmac_sig" in data and type(data["hmac_sig"]) is not str:
        return None
    message = (
        f'{{"data":{{{",".join(members)}}},"detail":"{detail}","event":"{event}","job_id":"{job_id}",'
        f'"schema_version":{version},"seq":{seq},"timestamp":"{timestamp}"}}'
    )
    digest = hashlib.sha256(message.encode()).digest()
    return LogEvent(seq, event, attempt, recorded_ms, digest, line, detail)


_TEXT = r'[^"\\\x00-\x1f]*'
_WRITTEN = re.compile(
    rf'\{{"schema_version": ?{SCHEMA_VERSION}, ?"seq": ?([1-9][0-9]{{0,14}}), ?"job_id": ?"({_TEXT})"'
    rf', ?"event": ?"([a-z_]+)", ?"timestamp": ?"({_TEXT})", ?"detail": ?"({_TEXT})"'
    r', ?"data": ?\{([^{}\[\]\\\x00-\x1f]*)\}\}'
)
_LONGEST_WRITTEN = MAX_PAYLOAD_BYTES // 4
"""The maximum length in characters, of which none takes more than four bytes."""

_VALUE = rf'"{_TEXT}"|0|-?[1-9][0-9]{{0,14}}|true|false|null'
_MEMBER = re.compile(rf'"({_TEXT})": ?({_VALUE})')
"""A member that is in canonical form: no escape, and no number that has another notation."""

_ONE_SIGNED = re.compile(rf'"({_TEXT})": ?({_VALUE}), ?"hmac_sig": ?"{_TEXT}"')
"""The complete data of most lines: one member, which needs no sorting, and the signature, which is not signed."""

_READ_CLOSER = frozenset({"attempt", "hmac_kid", "hmac_sig"})


def match_flat_line(line: str, job_id: str) -> LogEvent | None:
    """Return the event of a line in the usual format; None for any other line, as `parse_flat_line` does."""
    if len(line) > _LONGEST_WRITTEN:
        return None
    match = _WRITTEN.fullmatch(line)
    if match is None:
        return None
    seq, named, event, timestamp, detail, data = match.groups()
    recorded_ms = parse_time(timestamp)
    if named != job_id or event not in _KINDS or recorded_ms is None or len(detail) > MAX_DETAIL_CHARS:
        return None
    attempt = None
    one = _ONE_SIGNED.fullmatch(data)
    if one is not None and one[1] not in _READ_CLOSER and one[1].isascii():
        digested = f'"{one[1]}":{one[2]}'
    else:
        several = _members(data, line)
        if several is None:
            return None
        attempt, digested = several
    message = (
        f'{{"data":{{{digested}}},"detail":"{detail}","event":"{event}","job_id":"{job_id}",'
        f'"schema_version":{SCHEMA_VERSION},"seq":{seq},"timestamp":"{timestamp}"}}'
    )
    return LogEvent(int(seq), event, attempt, recorded_ms, hashlib.sha256(message.encode()).digest(), line, detail)


def _members(data: str, line: str) -> tuple[int | None, str] | None:
    """Return the attempt and the canonical form of the members of a line's data, without the signature."""
    found = _MEMBER.findall(data)
    # The matches are all the members only if joining them gives the same text.
    if ",".join([f'"{key}":{value}' for key, value in found]) != data and (
        ", ".join([f'"{key}": {value}' for key, value in found]) != data
    ):
        return None
    members = dict(found)
    if len(members) != len(found) or not (line.isascii() or "".join(members).isascii()):
        return None
    if members.pop("hmac_sig", '"')[0] != '"':
        return None
    attempt = None
    if "attempt" in members:
        if not members["attempt"].isdecimal() or members["attempt"] == "0":
            return None
        attempt = int(members["attempt"])
    if "hmac_kid" in members and not (members["hmac_kid"].isdecimal() and 1 <= int(members["hmac_kid"]) <= MAX_KID):
        return None
    return attempt, ",".join([f'"{key}":{value}' for key, value in sorted(members.items())])


def _moment_ms(timestamp: str, fallback_ms: int) -> int:
    moment = parse_time(timestamp)
    if moment is not None:
        return moment
    try:
        return int(datetime.fromisoformat(timestamp).timestamp() * 1000)
    except (ValueError, OverflowError):
        return fallback_ms
