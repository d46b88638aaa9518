"""The parser and the builder of wire events: bytes to a checked object, and arguments to the line that is sent.

Called by the registry (publish, accept), tickets and the import; calls the canonical form and the signature. Pure: no
clock, database, file or network. The rules are those of docs/job-protocol.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from json.encoder import encode_basestring
from operator import itemgetter
from typing import Any, NoReturn

from ...errors import InvalidInput
from ...model import EventKind
from .event import WireEvent
from .jcs import canonical, canonical_flat
from .limits import (
    JOB_ID_PATTERN,
    MAX_DETAIL_CHARS,
    MAX_JOB_ID_CHARS,
    MAX_KID,
    MAX_PAYLOAD_BYTES,
    MAX_SEQ,
    MAX_VALUES,
    SCHEMA_VERSION,
    TIMESTAMP_PATTERN,
    MalformedPayload,
    UnsupportedVersion,
    has_more_values,
)
from .signature import sign

_KINDS: dict[str, EventKind] = {kind.value: kind for kind in EventKind}
_FIELDS = ("schema_version", "seq", "job_id", "event", "timestamp", "detail", "data")
_fields = itemgetter(*_FIELDS)
_is_job_id = re.compile(JOB_ID_PATTERN).fullmatch
_is_timestamp = re.compile(TIMESTAMP_PATTERN).fullmatch
_LONGEST_INTEGER = len(str(-MAX_SEQ))
_INVALID_JOB_ID = f"job_id is not 1 to {MAX_JOB_ID_CHARS} letters, digits, '.', '_', ':', '@' or '-'"


def parse(payload: bytes | bytearray | str | Mapping[str, Any]) -> WireEvent:
    """Parse one wire event from an untrusted sender.

    Args:
        payload: the bytes of the message, its text, or the decoded object.

    Returns:
        The event. Its signature is not checked here.

    Raises:
        MalformedPayload: it is not JSON in UTF-8, does not conform to the schema, or is too large.
        UnsupportedVersion: it is JSON of another ``schema_version``.

    No other exception is raised, whatever the payload. Source: RFC 8259, RFC 7493 (I-JSON).
    """
    text = _text(payload)
    _check_values(text)
    decoded = _decode(text)
    if type(decoded) is not dict:
        raise MalformedPayload("it is not a JSON object")
    if "\n" in text or "\r" in text:
        text = text.replace("\n", " ").replace("\r", " ")
    text = text.strip(" \t")
    data = decoded.get("data")
    if type(data) is dict and len(decoded) == len(_FIELDS) and decoded.get("schema_version") == SCHEMA_VERSION:
        data_text = canonical_flat(data)
        if data_text is not None:
            return _parse_flat(decoded, data, data_text, text)
    version = decoded.get("schema_version")
    if type(version) is not int:
        raise MalformedPayload("schema_version is missing or not an integer")
    message = canonical(decoded)
    signature = data.get("hmac_sig") if type(data) is dict else None
    if signature is not None and (type(signature) is not str or not signature.isascii()):
        canonical({"": {"": signature}})  # not signed, but it must be valid JSON too, at its own depth
    if version != SCHEMA_VERSION:
        job_id = decoded.get("job_id")
        raise UnsupportedVersion(version, job_id if type(job_id) is str and _is_job_id(job_id) else None)
    if type(data) is not dict:
        raise MalformedPayload("data is missing or not an object")
    return _to_event(decoded, data, message, text)


def _parse_flat(payload: dict[str, Any], data: dict[str, Any], data_text: str, text: str) -> WireEvent:
    """Finish ``parse`` for a version 1 payload of the seven fields with a flat ``data``."""
    if type(payload["schema_version"]) is not int:
        raise MalformedPayload("schema_version is missing or not an integer")
    seq, job_id, kind, timestamp, detail, attempt, kid = _check_fields(payload, data)
    message = _utf8(_message(data_text, encode_basestring(detail), seq, job_id, kind, timestamp))
    event = _make_event(seq, job_id, kind, timestamp, detail, attempt, kid, payload, data, message, text)
    if event.signature is not None and not event.signature.isascii():
        _utf8(event.signature)
    return event


def decode(text: str) -> Any:
    """Decode JSON text from an untrusted sender by the rules for a payload.

    Raises:
        MalformedPayload: it is not JSON, has a key twice in one object, too many values, an integer beyond
            ±(2**53 - 1) or a number that is not finite.
    """
    _check_values(text)
    return _decode(text)


def build(
    *,
    job_id: str,
    seq: int,
    event: EventKind,
    timestamp: str,
    detail: str,
    data: Mapping[str, Any],
    attempt: int | None,
    kid: int | None,
    token: str | None,
) -> WireEvent:
    """Build one wire event, signed if a token is given.

    Args:
        job_id: the job that it is about.
        seq: its number within the job, from 1.
        event: its kind.
        timestamp: an RFC 3339 date-time, by convention ``YYYY-MM-DDTHH:MM:SSZ``.
        detail: one line for people; may be empty.
        data: JSON-serializable; ``attempt``, ``hmac_kid`` and ``hmac_sig`` are added to a copy.
        attempt: the attempt of the claim under which it is published; None before the job was first claimed.
        kid: the version of the token; None omits it, which means 1.
        token: the job's secret; None leaves the event unsigned.

    Returns:
        The event; ``text`` is what to send, one line of compact JSON in the order of the protocol's fields.

    Raises:
        InvalidInput: an argument is outside the protocol's limits, or ``data`` contradicts them.
    """
    if token is None and kid is not None:
        raise InvalidInput("a key version was given without a token to sign with", advice="give both or neither")
    stamped = dict(data)
    if attempt is not None or "attempt" in stamped:
        _set_reserved(stamped, "attempt", attempt)
    if kid is not None or "hmac_kid" in stamped:
        _set_reserved(stamped, "hmac_kid", kid)
    if "hmac_sig" in stamped:
        raise InvalidInput("data must not contain 'hmac_sig': the signature is computed here", advice="leave it out")
    payload: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "seq": seq,
        "job_id": job_id,
        "event": event.value,
        "timestamp": timestamp,
        "detail": detail,
        "data": stamped,
    }
    try:
        wire = _build_flat(payload, stamped, token)
        if wire is not None:
            return wire
        try:
            message = canonical(payload)
        except MalformedPayload:
            # Tuples, enumerations and the like have a JSON form: encode them, and use what a reader would decode.
            text = _encode(payload)
            _check_values(text)
            payload = _decode(text)
            stamped = payload["data"]
            message = canonical(payload)
        if token is not None:
            stamped["hmac_sig"] = sign(message, token)
        text = _encode(payload)
        _check_size(text)
        _check_values(text)
        return _to_event(payload, stamped, message, text)
    except MalformedPayload as problem:
        raise InvalidInput(
            f"the event for job {str(job_id)[:MAX_JOB_ID_CHARS]!r} cannot be sent: {problem.reason}"
        ) from None


def _build_flat(payload: dict[str, Any], data: dict[str, Any], token: str | None) -> WireEvent | None:
    """Finish ``build`` for a flat ``data``; None for any other. Both forms are assembled from the same parts."""
    data_text = canonical_flat(data)
    if data_text is None:
        return None
    seq, job_id, kind, timestamp, detail, attempt, kid = _check_fields(payload, data)
    detail_text = encode_basestring(detail)
    message = _utf8(_message(data_text, detail_text, seq, job_id, kind, timestamp))
    if token is not None:
        signature = data["hmac_sig"] = sign(message, token)
        comma = "," if len(data_text) > 2 else ""
        data_text = f'{data_text[:-1]}{comma}"hmac_sig":"{signature}"}}'
    text = (
        f'{{"schema_version":{SCHEMA_VERSION},"seq":{seq},"job_id":"{job_id}",'
        f'"event":"{kind._value_}","timestamp":"{timestamp}","detail":{detail_text},"data":{data_text}}}'
    )
    _check_size(text)
    _check_values(text)
    return _make_event(seq, job_id, kind, timestamp, detail, attempt, kid, payload, data, message, text)


def _message(data_text: str, detail_text: str, seq: int, job_id: str, kind: EventKind, timestamp: str) -> str:
    """Return the canonical form of the seven fields, in the order of their names."""
    return (
        f'{{"data":{data_text},"detail":{detail_text},"event":"{kind._value_}","job_id":"{job_id}",'
        f'"schema_version":{SCHEMA_VERSION},"seq":{seq},"timestamp":"{timestamp}"}}'
    )


def _check_fields(
    payload: dict[str, Any], data: dict[str, Any]
) -> tuple[int, str, EventKind, str, str, int | None, int]:
    """Check the fields of a version 1 payload, for both parse and build.

    Returns:
        seq, job_id, event, timestamp, detail, attempt, kid.
    """
    try:
        _, seq, job_id, kind, timestamp, detail, _ = _fields(payload)
    except KeyError as missing:
        raise MalformedPayload(f"{missing.args[0]} is missing") from None
    if type(seq) is not int or not 1 <= seq <= MAX_SEQ:
        raise MalformedPayload("seq is not an integer of at least 1")
    if type(job_id) is not str or _is_job_id(job_id) is None:
        raise MalformedPayload(_INVALID_JOB_ID)
    known = _KINDS.get(kind) if type(kind) is str else None
    if known is None:
        raise MalformedPayload("event is not one of " + ", ".join(_KINDS))
    if type(timestamp) is not str or _is_timestamp(timestamp) is None:
        raise MalformedPayload("timestamp is not a date-time such as 2026-06-19T09:32:00Z")
    if type(detail) is not str or len(detail) > MAX_DETAIL_CHARS or "\0" in detail:
        raise MalformedPayload(f"detail is not a string of at most {MAX_DETAIL_CHARS} characters without NUL")
    attempt = data.get("attempt")
    if (attempt is not None or "attempt" in data) and (type(attempt) is not int or not 1 <= attempt <= MAX_SEQ):
        raise MalformedPayload("data.attempt is not an integer of at least 1")
    kid = data.get("hmac_kid", 1)
    if type(kid) is not int or not 1 <= kid <= MAX_KID:
        raise MalformedPayload(f"data.hmac_kid is not an integer from 1 to {MAX_KID}")
    return seq, job_id, known, timestamp, detail, attempt, kid


def _to_event(payload: dict[str, Any], data: dict[str, Any], message: bytes, text: str) -> WireEvent:
    return _make_event(*_check_fields(payload, data), payload, data, message, text)


def _make_event(
    seq: int,
    job_id: str,
    kind: EventKind,
    timestamp: str,
    detail: str,
    attempt: int | None,
    kid: int,
    payload: dict[str, Any],
    data: dict[str, Any],
    message: bytes,
    text: str,
) -> WireEvent:
    signature = data.get("hmac_sig")
    if type(signature) is not str and "hmac_sig" in data:
        raise MalformedPayload("data.hmac_sig is not a string")
    digest = hashlib.sha256(message).digest()
    return WireEvent(
        seq, job_id, kind, timestamp, detail, data, attempt, kid, signature, payload, message, text, digest
    )


def _text(payload: bytes | bytearray | str | Mapping[str, Any]) -> str:
    if isinstance(payload, str):
        _check_size(payload)
        return payload
    if isinstance(payload, (bytes, bytearray)):
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise MalformedPayload(f"it is larger than {MAX_PAYLOAD_BYTES} bytes")
        try:
            return str(payload, "utf-8")
        except UnicodeDecodeError:
            raise MalformedPayload("it is not UTF-8") from None
    if isinstance(payload, Mapping):
        try:
            text = _encode(dict(payload))
        except MalformedPayload:
            raise
        except Exception:
            # A foreign mapping may raise any exception.
            raise MalformedPayload("it is a mapping that cannot be read") from None
        _check_size(text)
        return text
    raise MalformedPayload("it is neither bytes nor text nor a mapping")


def _check_size(text: str) -> None:
    size = len(text)
    if size <= MAX_PAYLOAD_BYTES and not text.isascii():
        size = len(_utf8(text))
    if size > MAX_PAYLOAD_BYTES:
        raise MalformedPayload(f"it is larger than {MAX_PAYLOAD_BYTES} bytes")


def _check_values(text: str) -> None:
    if has_more_values(text, MAX_VALUES):
        raise MalformedPayload(f"it contains more than {MAX_VALUES} values")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise MalformedPayload("a string contains a lone surrogate") from None


def _decode(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as problem:
        # problem.doc is the payload; the chain is cut so that no traceback shows it.
        raise MalformedPayload(f"it is not JSON (at character {problem.pos})") from None
    except RecursionError:
        raise MalformedPayload("it is nested too deeply") from None


def _encode(payload: dict[str, Any]) -> str:
    try:
        return _COMPACT.encode(payload)
    except RecursionError:
        raise MalformedPayload("it is nested too deeply") from None
    except (TypeError, ValueError):
        raise MalformedPayload("it contains a value that JSON cannot represent, or itself") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedPayload("a key occurs twice in one object")
    return result


def _integer(literal: str) -> int:
    # Check the length first: int() of a long literal takes quadratic time, or raises.
    if len(literal) <= _LONGEST_INTEGER:
        number = int(literal)
        if -MAX_SEQ <= number <= MAX_SEQ:
            return number
    raise MalformedPayload("an integer is beyond ±(2^53 - 1)")


def _constant(_: str) -> NoReturn:
    raise MalformedPayload("a number is not finite")


def _set_reserved(data: dict[str, Any], name: str, value: int | None) -> None:
    if name in data and (type(data[name]) is not int or data[name] != value):
        raise InvalidInput(
            f"data sets the reserved name {name!r} to a value that differs from the event's", advice="leave it out"
        )
    if value is not None:
        data[name] = value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
