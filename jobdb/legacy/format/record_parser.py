"""The parser of records: converts the bytes of ``<job_id>.json`` to a `LegacyRecord`, or returns the damage.

Called by the reader of source jobs and by the exporter, which reads existing files. Pure; never raises, whatever the
bytes: a file that is not clearly a valid record is `Damaged`, and its job is never guessed. Records in the old scripts'
format take a fast path, which a property test compares with the full checks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from ...core.protocol.limits import JOB_ID_PATTERN
from ...core.protocol.topics import topic_prefix_error
from ...model import JobStatus
from .damage import Damaged, DamageKind, quoted
from .jobdb_state import STATE_FIELD, State, parse_state
from .record import BROKER_FIELDS, DEFAULT_IDLE_TIMEOUT_SEC, DEFAULT_TIMEOUT_SEC, FIELDS, LegacyRecord
from .strict_json import parse_object
from .timestamps import parse_time

Json = Any

MAX_RECORD_BYTES = 8 << 20
"""The maximum size of a record; the old scripts never wrote a larger one, and memory must stay bounded."""

MAX_PROMPT_CHARS = 4 << 20
MAX_INTEGER = 2**53 - 1

_REQUIRED = ("status", "created_at", "updated_at", "prompt", "agent", "broker", "topic_prefix", "last_seq")
_STATUSES = frozenset(status.value for status in JobStatus)
_KNOWN = frozenset(FIELDS)
_NOT_EXTRA = _KNOWN | {STATE_FIELD}
_KNOWN_OF_BROKER = frozenset(BROKER_FIELDS)
_first_values, _last_values = itemgetter(*FIELDS[:8]), itemgetter(*FIELDS[8:])
_TEXT_ONLY = frozenset({str})
_SAFE_ID = re.compile(JOB_ID_PATTERN)
_MISSING = object()


def safe_id(text: str) -> bool:
    """Return whether an id is safe as a file name and as an MQTT topic level: 1 to 128 of ``A-Za-z0-9_.:@-``."""
    return _SAFE_ID.fullmatch(text) is not None


def parse_record(raw: bytes, file_name: str) -> LegacyRecord | Damaged:
    """Parse one record.

    Args:
        raw: the content of the file.
        file_name: its name, ``<job_id>.json``.

    Returns:
        The record, or the damage. Never raises.
    """
    if len(raw) > MAX_RECORD_BYTES:
        return too_large(len(raw))
    document = parse_object(raw)
    if isinstance(document, Damaged):
        return document
    return _parse_fast(document, file_name) or _parse_checked(document, file_name)


def too_large(size: int) -> Damaged:
    """Return the damage of a file that is too large to be read."""
    return Damaged(
        DamageKind.TOO_LARGE, f"{size:,} bytes are too much for a record; at most {MAX_RECORD_BYTES:,} are read"
    )


def _parse_fast(document: dict[str, Json], file_name: str) -> LegacyRecord | None:
    """Return the record for a document with exactly the fields of the format, in the old scripts' form.

    None for any other document, valid or not: `_parse_checked` decides. This fast path never returns a record that
    `_parse_checked` would not return.
    """
    if document.keys() != _KNOWN:
        return None
    (version, job_id, status, created_at, updated_at, prompt, agent, session) = _first_values(document)
    (broker, prefix, timeout_sec, idle_timeout_sec, artifacts, last_seq, token) = _last_values(document)
    if not (
        type(version) is int
        and version == 1
        and type(job_id) is str
        and file_name == job_id + ".json"
        and _SAFE_ID.fullmatch(job_id)
        and type(status) is str
        and status in _STATUSES
        and type(created_at) is str
        and type(updated_at) is str
        and type(prompt) is str
        and len(prompt) <= MAX_PROMPT_CHARS
        and type(agent) is str
        and len(agent) <= 128
        and (session is None or (type(session) is str and len(session) <= 256))
        and type(broker) is dict
        and len(broker) == len(BROKER_FIELDS)
        and type(prefix) is str
        and topic_prefix_error(prefix) is None
        and type(timeout_sec) is int
        and 0 <= timeout_sec <= MAX_INTEGER
        and type(idle_timeout_sec) is int
        and 0 <= idle_timeout_sec <= MAX_INTEGER
        and type(artifacts) is list
        and _TEXT_ONLY.issuperset(map(type, artifacts))
        and type(last_seq) is int
        and 0 <= last_seq <= MAX_INTEGER
        and (token is None or (type(token) is str and len(token) <= 65536))
    ):
        return None
    created_ms, updated_ms = parse_time(created_at), parse_time(updated_at)
    if created_ms is None or updated_ms is None or not _is_usual_broker(broker):
        return None
    return LegacyRecord(
        job_id,
        status,
        created_ms,
        updated_ms,
        prompt,
        agent,
        session,
        broker,
        broker.pop("password"),
        prefix,
        timeout_sec,
        idle_timeout_sec,
        artifacts,
        last_seq,
        token,
        (),
        {},
    )


def _is_usual_broker(broker: dict[str, Json]) -> bool:
    if broker.keys() != _KNOWN_OF_BROKER:
        return False
    port, username, password = broker["port"], broker["username"], broker["password"]
    return (
        type(broker["host"]) is str
        and type(port) is int
        and 0 <= port <= 65535
        and type(broker["tls"]) is bool
        and (username is None or type(username) is str)
        and (password is None or type(password) is str)
    )


def _parse_checked(document: dict[str, Json], file_name: str) -> LegacyRecord | Damaged:
    version = document.get("schema_version", _MISSING)
    if version is _MISSING:
        return _missing("schema_version")
    if type(version) is not int or version != 1:
        return Damaged(DamageKind.OTHER_SCHEMA, f"schema_version is {quoted(_json(version))}; only 1 can be read")
    problem = _wrong_identity(document, file_name) or _wrong_status(document)
    if problem is not None:
        return problem
    for name in _REQUIRED:
        if name not in document:
            return _missing(name)
    created_ms, updated_ms = _time(document, "created_at"), _time(document, "updated_at")
    if isinstance(created_ms, Damaged):
        return created_ms
    if isinstance(updated_ms, Damaged):
        return updated_ms
    problem = _wrong_texts(document) or _wrong_topic(document) or _wrong_numbers(document) or _wrong_artifacts(document)
    if problem is not None:
        return problem
    broker = document["broker"]
    problem = _wrong_broker(broker) if broker is not None else None
    if problem is not None:
        return problem
    state: State | None = None
    if STATE_FIELD in document:
        found = parse_state(document[STATE_FIELD], has_token=bool(document.get("auth_token")))
        if isinstance(found, Damaged):
            return found
        state = found
    absent = [
        name
        for name in ("agent_session", "timeout_sec", "idle_timeout_sec", "expected_artifacts", "auth_token")
        if name not in document
    ]
    has_extra = len(document) + len(absent) > len(FIELDS)
    password = None
    if broker is not None:
        absent += [f"broker.{name}" for name in BROKER_FIELDS if name not in broker]
        password = broker.pop("password", None)
    return LegacyRecord(
        job_id=document["job_id"],
        status=document["status"],
        created_ms=created_ms,
        updated_ms=updated_ms,
        prompt=document["prompt"],
        agent=document["agent"],
        agent_session=document.get("agent_session"),
        broker=broker,
        broker_password=password,
        topic_prefix=document["topic_prefix"],
        timeout_sec=document.get("timeout_sec", DEFAULT_TIMEOUT_SEC),
        idle_timeout_sec=document.get("idle_timeout_sec", DEFAULT_IDLE_TIMEOUT_SEC),
        expected_artifacts=document.get("expected_artifacts", []),
        last_seq=document["last_seq"],
        auth_token=document.get("auth_token"),
        absent=tuple(sorted(absent)) if absent else (),
        extra={name: value for name, value in document.items() if name not in _NOT_EXTRA} if has_extra else {},
        state=state,
    )


def _wrong_identity(document: Mapping[str, Json], file_name: str) -> Damaged | None:
    job_id = document.get("job_id", _MISSING)
    if job_id is _MISSING:
        return _missing("job_id")
    if type(job_id) is not str:
        return _wrong_type("job_id", job_id, "a text")
    if not safe_id(job_id):
        return Damaged(
            DamageKind.UNSAFE_ID,
            f"job_id {quoted(job_id)} is not a safe file name: 1 to 128 of A-Z a-z 0-9 _ . : @ -, not . : @ - first",
        )
    if job_id + ".json" != file_name:
        return Damaged(DamageKind.WRONG_ID, f"job_id is {quoted(job_id)}, which is not the file's name")
    return None


def _wrong_status(document: Mapping[str, Json]) -> Damaged | None:
    status = document.get("status", _MISSING)
    if status is _MISSING:
        return _missing("status")
    if type(status) is not str:
        return _wrong_type("status", status, "a text")
    if status not in _STATUSES:
        return Damaged(DamageKind.UNKNOWN_STATUS, f"status {quoted(status)} is not one of {', '.join(JobStatus)}")
    return None


def _time(document: Mapping[str, Json], name: str) -> int | Damaged:
    text = document[name]
    if type(text) is not str:
        return _wrong_type(name, text, "a text")
    ms = parse_time(text)
    if ms is None:
        return Damaged(DamageKind.BAD_TIME, f"{name} {quoted(text)} is not a time of the form YYYY-MM-DDTHH:MM:SSZ")
    return ms


_TEXTS = (
    ("prompt", False, MAX_PROMPT_CHARS),
    ("agent", False, 128),
    ("agent_session", True, 256),
    ("topic_prefix", False, MAX_PROMPT_CHARS),
    ("auth_token", True, 65536),
)


def _wrong_texts(document: Mapping[str, Json]) -> Damaged | None:
    for name, nullable, longest in _TEXTS:
        text = document.get(name)
        if type(text) is str:
            if len(text) > longest:
                return Damaged(DamageKind.OUT_OF_RANGE, f"{name} has {len(text):,} characters; at most {longest:,} fit")
        elif text is not None or not nullable:
            return _wrong_type(name, text, "a text or null" if nullable else "a text")
    return None


def _wrong_topic(document: Mapping[str, Json]) -> Damaged | None:
    problem = topic_prefix_error(document["topic_prefix"])
    return None if problem is None else Damaged(DamageKind.BAD_TOPIC, f"topic_prefix {problem}")


def _wrong_numbers(document: Mapping[str, Json]) -> Damaged | None:
    for name in ("timeout_sec", "idle_timeout_sec", "last_seq"):
        number = document.get(name, 0)
        if type(number) is not int:
            return _wrong_type(name, number, "an integer")
        if not 0 <= number <= MAX_INTEGER:
            return Damaged(DamageKind.OUT_OF_RANGE, f"{name} is {quoted(str(number))}; it must be 0 to 2^53-1")
    return None


def _wrong_artifacts(document: Mapping[str, Json]) -> Damaged | None:
    artifacts = document.get("expected_artifacts", [])
    if type(artifacts) is not list:
        return _wrong_type("expected_artifacts", artifacts, "a list of texts")
    for item in artifacts:
        if type(item) is not str:
            return _wrong_type("an item of expected_artifacts", item, "a text")
    return None


def _wrong_broker(broker: Json) -> Damaged | None:
    if type(broker) is not dict:
        return _wrong_type("broker", broker, "an object")
    for name in ("host", "port"):
        if name not in broker:
            return _missing(f"broker.{name}")
    if type(broker["host"]) is not str:
        return _wrong_type("broker.host", broker["host"], "a text")
    port = broker["port"]
    if type(port) is not int:
        return _wrong_type("broker.port", port, "an integer")
    if not 0 <= port <= 65535:
        return Damaged(DamageKind.OUT_OF_RANGE, f"broker.port is {quoted(str(port))}; it must be 0 to 65535")
    if type(broker.get("tls", False)) is not bool:
        return _wrong_type("broker.tls", broker["tls"], "true or false")
    for name in ("username", "password"):
        value = broker.get(name)
        if value is not None and type(value) is not str:
            return _wrong_type(f"broker.{name}", value, "a text or null")
    return None


def _missing(name: str) -> Damaged:
    return Damaged(DamageKind.MISSING_FIELD, f"there is no {name}")


def _wrong_type(name: str, value: Json, wanted: str) -> Damaged:
    return Damaged(DamageKind.WRONG_TYPE, f"{name} is {_KINDS.get(type(value), 'something else')}, not {wanted}")


_KINDS = {
    str: "a text",
    int: "a number",
    float: "a number with a fraction",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "an object",
}


def _json(value: Json) -> str:
    """Return a value as text for quoting, which shows only the beginning."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return json.dumps(value)
