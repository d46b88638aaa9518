"""Between a record of the old registry and the rows of the database, both ways.

Called by the importer, its verification and the exporter. Pure but for the vault, which seals and unseals the token
and the broker's password. What the columns cannot say (a field that is absent rather than null) is in ``absent``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from ..engines.sql.rows import password_binding, shorten, token_binding
from ..model import JobStatus
from ..vault import Vault
from .layout import EntryKind
from .records import DEFAULT_IDLE_TIMEOUT_SEC, DEFAULT_TIMEOUT_SEC, LegacyRecord
from .source import SourceJob

Json = Any
Seal = Callable[[str, str], bytes]
"""Seals a secret for a row: the secret, what it is bound to."""

EMPTY_TOKEN = "auth_token=empty"
"""Stands among the absent names for an ``auth_token`` that is an empty text: no secret, but not null either."""

_IN_BROKER_TEXT = frozenset({"broker.tls", "broker.username"})
_FINAL = frozenset(status.value for status in JobStatus if status.terminal)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


@lru_cache(maxsize=256)
def _decoded(text: str) -> dict[str, Json]:
    """A broker's settings. Most jobs share a few brokers; nobody changes what this returns."""
    found: dict[str, Json] = json.loads(text)
    return found


class JobRow(NamedTuple):
    """A row of the statements ``legacy_job`` and ``legacy_jobs``."""

    number: int
    job_id: str
    status: str
    created_ms: int
    updated_ms: int
    prompt: str
    agent: str
    agent_session: str | None
    broker: str | None
    broker_password: bytes | None
    topic_prefix: str
    timeout_sec: int
    idle_timeout_sec: int
    expected_artifacts: str
    last_seq: int
    kid: int
    token: bytes | None
    token_revoked_ms: int | None
    extra: str
    record_updated_ms: int | None
    record_seq: int | None
    job_seq: int | None
    absent: str | None
    event_form: str | None
    event_digest: bytes | None
    audit_form: str | None
    audit_digest: bytes | None
    attempt: int
    worker: str | None
    lease_until_ms: int | None
    has_broker: int
    terminal_seq: int | None
    started_ms: int | None
    finished_ms: int | None
    last_event: str | None
    last_event_ms: int | None
    detail: str | None

    def __repr__(self) -> str:
        return f"<JobRow {self.job_id}>"

    @property
    def imported(self) -> bool:
        """It came out of the old registry."""
        return self.record_updated_ms is not None

    @property
    def untouched(self) -> bool:
        """It is as it was imported."""
        return self.updated_ms == self.record_updated_ms and self.kid <= 1


def job_columns(source: SourceJob) -> dict[str, Json]:
    """The parameters of ``legacy_insert_job`` and ``legacy_update_job``."""
    record, logs = source.record, source.logs
    first = logs.events[0] if logs.events else None
    last = logs.events[-1] if logs.events else None
    final = record.status in _FINAL
    return {
        "job_id": record.job_id,
        "status": record.status,
        "agent": record.agent,
        "agent_session": record.agent_session,
        "topic_prefix": record.topic_prefix,
        "timeout_sec": record.timeout_sec,
        "idle_timeout_sec": record.idle_timeout_sec,
        "has_broker": 0 if record.broker is None else 1,
        "kid": 1 if record.auth_token else 0,
        "last_seq": source.last_seq,
        "attempt": max((event.attempt or 0 for event in logs.events), default=0),
        "terminal_seq": _terminal_seq(source) if final else None,
        "created_ms": record.created_ms,
        "updated_ms": record.updated_ms,
        "started_ms": first.recorded_ms if first else None,
        "finished_ms": record.updated_ms if final else None,
        "last_event": last.event if last else None,
        "last_event_ms": last.recorded_ms if last else None,
        "detail": shorten(last.detail) if last and last.detail else None,
    }


def _terminal_seq(source: SourceJob) -> int:
    """The seq of the event that ended the job; without one, the last seq there is."""
    for event in source.logs.events:
        if event.event == source.record.status:
            return event.seq
    return source.last_seq


_DERIVED = (
    "has_broker",
    "kid",
    "last_seq",
    "attempt",
    "terminal_seq",
    "started_ms",
    "finished_ms",
    "last_event",
    "last_event_ms",
    "detail",
)
_derived_of_row = attrgetter(*_DERIVED)
_derived_of_columns = itemgetter(*_DERIVED)


def derived(columns: dict[str, Json] | JobRow) -> tuple[Json, ...]:
    """What a job has beyond its record: worked out from record and logs at the import."""
    found: tuple[Json, ...] = _derived_of_row(columns) if isinstance(columns, JobRow) else _derived_of_columns(columns)
    return found


def spec_columns(record: LegacyRecord, seal: Seal) -> dict[str, Json]:
    """The parameters of ``legacy_insert_spec`` and ``legacy_update_spec``, without ``job``."""
    password = record.broker_password
    sealed = None if password is None else seal(password, password_binding(record.job_id))
    return {
        "prompt": record.prompt,
        "broker": None if record.broker is None else _encode(record.broker),
        "broker_password": sealed,
        "expected_artifacts": _encode(record.expected_artifacts) if record.expected_artifacts else "[]",
        "extra": _encode(record.extra) if record.extra else "{}",
    }


def token_columns(record: LegacyRecord, seal: Seal) -> dict[str, Json]:
    """The parameters of ``legacy_put_token``, without ``job``, for a record that has a token: as version 1."""
    assert record.auth_token
    return {
        "sealed": seal(record.auth_token, token_binding(record.job_id, 1)),
        "created_ms": record.created_ms,
    }


def import_columns(source: SourceJob) -> dict[str, Json]:
    """The parameters of ``legacy_put_import``, without ``job``."""
    record, logs = source.record, source.logs
    absent = " ".join(name for name in record.absent if name not in _IN_BROKER_TEXT)
    if record.auth_token == "":
        absent = f"{absent} {EMPTY_TOKEN}".lstrip()
    return {
        "updated_ms": record.updated_ms,
        "record_seq": record.last_seq,
        "job_seq": source.last_seq,
        "absent": absent,
        "event_form": logs.forms.get(EntryKind.EVENT_LOG),
        "event_digest": source.digests.get(EntryKind.EVENT_LOG),
        "audit_form": logs.forms.get(EntryKind.AUDIT_LOG),
        "audit_digest": source.digests.get(EntryKind.AUDIT_LOG),
    }


def record_of(row: JobRow, vault: Vault) -> LegacyRecord:
    """The record that the old scripts would see for a job, secrets included.

    Raises:
        KeyProblem: the master key at hand is not the one that sealed the job's secrets.
    """
    token = None
    if row.token is not None and row.token_revoked_ms is None:
        token = vault.unseal(row.token, bound_to=token_binding(row.job_id, row.kid))
    password = None
    if row.broker_password is not None:
        password = vault.unseal(row.broker_password, bound_to=password_binding(row.job_id))
    broker = None if row.broker is None else _decoded(row.broker)
    artifacts = [] if row.expected_artifacts == "[]" else json.loads(row.expected_artifacts)
    absent: list[str] = []
    if broker is not None:
        absent = [f"broker.{name}" for name in ("tls", "username") if name not in broker]
    if row.absent:
        names = row.absent.split(" ")
        if EMPTY_TOKEN in names:
            names.remove(EMPTY_TOKEN)
            token = token or ""
        absent += [
            name
            for name in names
            if (name == "broker.password" and password is None and broker is not None)
            or (name == "auth_token" and token is None)
            or (name == "agent_session" and row.agent_session is None)
            or (name == "timeout_sec" and row.timeout_sec == DEFAULT_TIMEOUT_SEC)
            or (name == "idle_timeout_sec" and row.idle_timeout_sec == DEFAULT_IDLE_TIMEOUT_SEC)
            or (name == "expected_artifacts" and not artifacts)
        ]
    seq = row.last_seq
    if row.record_seq is not None and seq == row.job_seq:
        seq = row.record_seq
    return LegacyRecord(
        job_id=row.job_id,
        status=row.status,
        created_ms=row.created_ms // 1000 * 1000,
        updated_ms=row.updated_ms // 1000 * 1000,
        prompt=row.prompt,
        agent=row.agent,
        agent_session=row.agent_session,
        broker=broker,
        broker_password=password,
        topic_prefix=row.topic_prefix,
        timeout_sec=row.timeout_sec,
        idle_timeout_sec=row.idle_timeout_sec,
        expected_artifacts=artifacts,
        last_seq=seq,
        auth_token=token,
        absent=tuple(sorted(absent)) if absent else (),
        extra={} if row.extra == "{}" else json.loads(row.extra),
    )
