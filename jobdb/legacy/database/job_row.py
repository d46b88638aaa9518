"""From the rows of the database to a record of the old registry.

Called by the importer, its verification and the exporter. Pure but for the vault, which unseals the token and the
broker's password. What the columns cannot say (a field that is absent rather than null) is in ``absent``.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ...engines.sql.rows import password_binding, token_binding
from ..format.record import DEFAULT_IDLE_TIMEOUT_SEC, DEFAULT_TIMEOUT_SEC, LegacyRecord

if TYPE_CHECKING:
    from ...crypto.vault import Vault

Json = Any
EMPTY_TOKEN_MARKER = "auth_token=empty"
"""Stands among the absent names for an ``auth_token`` that is an empty text: no secret, but not null either."""

KID_MARKER = "kid="
"""Stands among the absent names, with the number, for a current token that came as a later version than 1."""

NO_TOKEN_MARKER = "closed="
"""Stands there, with one of the reasons below, for a job that came without a token and accepts no event until it is
given one: its key is a random secret that nobody knows, and revoked."""

TOKEN_OMITTED, TOKEN_REVOKED, TOKEN_REQUIRED = "left_out", "revoked", "secured"
"""The token was left out of the export; it was revoked; it never had one, and this environment wants one."""

_WHOLE_BROKER = frozenset({"tls", "username"})


@lru_cache(maxsize=256)
def _decode_broker(text: str) -> dict[str, Json]:
    """A broker's settings. Most jobs share a few brokers; nobody changes what this returns."""
    found: dict[str, Json] = json.loads(text)
    return found


@lru_cache(maxsize=256)
def _texts(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


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
    def imported_kid(self) -> int:
        """The version of the token that the record had."""
        return next((int(name[len(KID_MARKER) :]) for name in self._markers() if name.startswith(KID_MARKER)), 1)

    @property
    def no_token_reason(self) -> str:
        """Why the import gave the job a key that nobody has; empty if it did not, or has been replaced since."""
        if self.token_revoked_ms is None or self.kid != self.imported_kid:
            return ""
        return next((name[len(NO_TOKEN_MARKER) :] for name in self._markers() if name.startswith(NO_TOKEN_MARKER)), "")

    @property
    def unchanged_since_import(self) -> bool:
        """It is as it was imported."""
        return self.updated_ms == self.record_updated_ms and self.kid <= self.imported_kid

    def _markers(self) -> list[str]:
        return self.absent.split(" ") if self.absent and "=" in self.absent else []


def add_key_markers(absent: str, kid: int, no_token_reason: str) -> str:
    """Return the absent names with what tells a key that came with its job from one that it was given later."""
    names = [name for name in absent.split(" ") if name and not name.startswith((KID_MARKER, NO_TOKEN_MARKER))]
    if kid > 1:
        names.append(f"{KID_MARKER}{kid}")
    if no_token_reason:
        names.append(NO_TOKEN_MARKER + no_token_reason)
    return " ".join(names)


def record_from_row(row: JobRow, vault: Vault) -> LegacyRecord:
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
    seq = row.last_seq
    if row.record_seq is not None and seq == row.job_seq:
        seq = row.record_seq
    return record_from_values(
        (
            row.job_id,
            row.status,
            row.agent,
            row.agent_session,
            row.topic_prefix,
            row.timeout_sec,
            row.idle_timeout_sec,
            *(None,) * 5,
            row.created_ms,
            row.updated_ms,
        ),
        (row.prompt, row.broker, row.expected_artifacts, row.extra),
        row.absent or "",
        seq,
        token,
        password,
    )


def record_from_values(
    job: tuple[Json, ...],
    spec: tuple[Json, ...],
    absent: str,
    last_seq: int,
    token: str | None,
    password: str | None,
) -> LegacyRecord:
    """The record that values of the database make.

    Args:
        job: in the order of `ready.JOB_COLUMNS`, of which it uses what a record has.
        spec: in the order of `ready.SPEC_COLUMNS`.
        absent: names of the fields that the record did not have.
        last_seq: the record's, which its log may have been ahead of.
        token: in clear.
        password: the broker's, in clear.
    """
    broker = None if spec[1] is None else _decode_broker(spec[1])
    artifacts = [] if spec[2] == "[]" else list(_texts(spec[2]))
    gone: list[str] = []
    if broker is not None and not _WHOLE_BROKER.issubset(broker):
        gone = [f"broker.{name}" for name in ("tls", "username") if name not in broker]
    if absent:
        names = absent.split(" ")
        if EMPTY_TOKEN_MARKER in names:
            names.remove(EMPTY_TOKEN_MARKER)
            token = token or ""
        gone += [
            name
            for name in names
            if (name == "broker.password" and password is None and broker is not None)
            or (name == "auth_token" and token is None)
            or (name == "agent_session" and job[3] is None)
            or (name == "timeout_sec" and job[5] == DEFAULT_TIMEOUT_SEC)
            or (name == "idle_timeout_sec" and job[6] == DEFAULT_IDLE_TIMEOUT_SEC)
            or (name == "expected_artifacts" and not artifacts)
        ]
    return LegacyRecord(
        job[0],
        job[1],
        job[12] // 1000 * 1000,
        job[13] // 1000 * 1000,
        spec[0],
        job[2],
        job[3],
        broker,
        password,
        job[4],
        job[5],
        job[6],
        artifacts,
        last_seq,
        token,
        tuple(sorted(gone)) if gone else (),
        {} if spec[3] == "{}" else json.loads(spec[3]),
    )
