"""A record of the old registry, field by field.

Created by `record_parser` from a file and by `database.job_row` from a row; rendered by the exporter and the drop-in
module. Pure: no file, clock or database.
"""

from __future__ import annotations

import marshal
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from .jobdb_state import State
from .timestamps import format_time

Json = Any

DEFAULT_TIMEOUT_SEC = 3600
DEFAULT_IDLE_TIMEOUT_SEC = 120

FIELDS = (
    "schema_version",
    "job_id",
    "status",
    "created_at",
    "updated_at",
    "prompt",
    "agent",
    "agent_session",
    "broker",
    "topic_prefix",
    "timeout_sec",
    "idle_timeout_sec",
    "expected_artifacts",
    "last_seq",
    "auth_token",
)
"""The fields of the format, in the order in which the old scripts write them."""

BROKER_FIELDS = ("host", "port", "tls", "username", "password")


@dataclass(slots=True)
class LegacyRecord:
    """A valid record, field by field, with all that is needed to write it again as an equal JSON object.

    Attributes:
        broker: host, port, tls, username and unknown fields, unchanged; None for ``null``. Without the password.
        broker_password: in clear text; None if null or absent.
        auth_token: in clear text; None if null or absent. An empty string is kept as such and is not a token.
        created_ms, updated_ms: Unix milliseconds.
        absent: the names of optional fields that the record does not have; those of the broker as ``broker.tls``.
        extra: unknown fields.
        state: the state added by an export because the other fields cannot express it; not part of fingerprints.
    """

    job_id: str
    status: str
    created_ms: int
    updated_ms: int
    prompt: str = field(repr=False)
    agent: str
    agent_session: str | None
    broker: dict[str, Json] | None
    broker_password: str | None = field(repr=False)
    topic_prefix: str
    timeout_sec: int
    idle_timeout_sec: int
    expected_artifacts: list[str]
    last_seq: int
    auth_token: str | None = field(repr=False)
    absent: tuple[str, ...]
    extra: dict[str, Json]
    state: State | None = None

    def fields(self) -> tuple[Json, ...]:
        """Return all fields except the state, in the order of the constructor."""
        return _fields_of(self)

    def fingerprint(self) -> bytes:
        """Return every field in a canonical form: two records are equal, as JSON, if their fingerprints are.

        ``==`` is not sufficient: in Python 1, 1.0 and True are equal.
        """
        return marshal.dumps(_fields_of(self), 2)

    def as_document(self) -> dict[str, Json]:
        """Return the record as the old scripts know it, secrets included; equal, as JSON, to what was read."""
        document: dict[str, Json] = {
            "schema_version": 1,
            "job_id": self.job_id,
            "status": self.status,
            "created_at": format_time(self.created_ms),
            "updated_at": format_time(self.updated_ms),
            "prompt": self.prompt,
            "agent": self.agent,
            "agent_session": self.agent_session,
            "broker": self._broker_document(),
            "topic_prefix": self.topic_prefix,
            "timeout_sec": self.timeout_sec,
            "idle_timeout_sec": self.idle_timeout_sec,
            "expected_artifacts": self.expected_artifacts,
            "last_seq": self.last_seq,
            "auth_token": self.auth_token,
        }
        for name in self.absent:
            document.pop(name, None)
        document.update(self.extra)
        return document

    def _broker_document(self) -> dict[str, Json] | None:
        if self.broker is None:
            return None
        known = {
            "host": self.broker["host"],
            "port": self.broker["port"],
            "tls": self.broker.get("tls", False),
            "username": self.broker.get("username"),
            "password": self.broker_password,
        }
        for name in BROKER_FIELDS:
            if f"broker.{name}" in self.absent:
                del known[name]
        return known | {name: value for name, value in self.broker.items() if name not in known}


_fields_of = attrgetter(*(each.name for each in fields(LegacyRecord) if each.name != "state"))
