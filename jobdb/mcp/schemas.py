"""The JSON Schemas of what tools take and return.

Used by the table of tools; pure data and functions. What a tool returns has the names of the records' ``as_dict``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model import EventKind, JobStatus

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
INTEGER: Schema = {"type": "integer"}
INTEGER_OR_NULL: Schema = {"type": ["integer", "null"]}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
TEXTS: Schema = {"type": "array", "items": TEXT}


def record(properties: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object that has all of these properties."""
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def or_null(schema: Schema) -> Schema:
    """Return a schema that allows null, too."""
    return {"anyOf": [schema, {"type": "null"}]}


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


STATUS: Schema = {"type": "string", "enum": [status.value for status in JobStatus]}
EVENT_KIND: Schema = {"type": "string", "enum": [kind.value for kind in EventKind]}

JOB = record(
    {
        "schema_version": INTEGER,
        "job_id": TEXT,
        "status": STATUS,
        "agent": TEXT,
        "agent_session": TEXT_OR_NULL,
        "prompt": TEXT,
        "priority": INTEGER,
        "topic_prefix": TEXT,
        "broker": {"type": ["object", "null"]},
        "timeout_sec": INTEGER,
        "idle_timeout_sec": INTEGER,
        "expected_artifacts": TEXTS,
        "last_seq": INTEGER,
        "attempt": INTEGER,
        "strikes": INTEGER,
        "max_attempts": INTEGER_OR_NULL,
        "not_before": TEXT_OR_NULL,
        "worker": TEXT_OR_NULL,
        "lease_expires_at": TEXT_OR_NULL,
        "created_at": TEXT,
        "updated_at": TEXT,
        "started_at": TEXT_OR_NULL,
        "finished_at": TEXT_OR_NULL,
        "last_event": or_null(EVENT_KIND),
        "last_event_at": TEXT_OR_NULL,
        "detail": TEXT_OR_NULL,
        "auth": TEXT,
        "extra": OBJECT,
    }
)
EVENT = record(
    {
        "job_id": TEXT,
        "seq": INTEGER,
        "event": EVENT_KIND,
        "timestamp": TEXT,
        "detail": TEXT,
        "data": OBJECT,
        "attempt": INTEGER_OR_NULL,
        "recorded_at": TEXT,
    }
)
QUESTION = record(
    {
        "job_id": TEXT,
        "key": TEXT,
        "attempt": INTEGER,
        "text": TEXT,
        "choices": TEXTS,
        "seq": INTEGER,
        "asked_at": TEXT,
        "answer": TEXT_OR_NULL,
        "message": TEXT,
        "answered_by": TEXT_OR_NULL,
        "answered_at": TEXT_OR_NULL,
    }
)
CLAIM = record({"job_id": TEXT, "attempt": INTEGER, "worker": TEXT, "lease_expires_at": TEXT_OR_NULL, "job": JOB})
