"""A job's row in the database, and the conversion to a record of the old registry.

Called by the importer, its verification, the exporter and the drop-in module. ``job_queries.py`` reads the rows. Pure
except for the vault, which unseals the token and the broker's password. Facts that columns cannot express, such as a
field that is absent rather than null, are in ``imports.absent``.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ...engines.sql.sealer import password_binding, token_binding
from ..format.record import DEFAULT_IDLE_TIMEOUT_SEC, DEFAULT_TIMEOUT_SEC, LegacyRecord
from .job_values import JobValues, LogForms, SpecValues
from .key_markers import EMPTY_TOKEN_MARKER, NoTokenReason, imported_kid, imported_no_token_reason

if TYPE_CHECKING:
    from ...crypto.vault import Vault

Json = Any

_WHOLE_BROKER = frozenset({"tls", "username"})


class JobRow(NamedTuple):
    """A row of the statements ``legacy_job`` and ``legacy_jobs``.

    Attributes:
        row_id: the value of ``jobs.id``.
        broker_password, token: sealed.
        record_updated_ms, record_seq, job_seq, absent: see `OriginValues`; None for a job that was not imported.
    """

    row_id: int
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
        """True if it was imported from the old registry."""
        return self.record_updated_ms is not None

    @property
    def imported_kid(self) -> int:
        """The version of the token that the record had."""
        return imported_kid(self.absent)

    @property
    def no_token_reason(self) -> NoTokenReason | None:
        """The reason why the import gave the job a key that nobody has; None if it did not, or the key was replaced."""
        if self.token_revoked_ms is None or self.kid != self.imported_kid:
            return None
        return imported_no_token_reason(self.absent)

    @property
    def forms(self) -> LogForms:
        """The form of its logs in the old registry."""
        return LogForms(self.event_form, self.event_digest, self.audit_form, self.audit_digest)

    @property
    def unchanged_since_import(self) -> bool:
        """True if it has not changed since its import."""
        return self.updated_ms == self.record_updated_ms and self.kid <= self.imported_kid


def record_from_row(row: JobRow, vault: Vault) -> LegacyRecord:
    """Return a job's record as the old scripts would see it, secrets included.

    Raises:
        KeyProblem: the master key is not the one that sealed the job's secrets.
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
    return record_from_values(row, row, row.absent or "", seq, token, password)


def record_from_values(
    job: JobValues | JobRow,
    spec: SpecValues | JobRow,
    absent: str,
    last_seq: int,
    token: str | None,
    password: str | None,
) -> LegacyRecord:
    """Return the record for values from the database.

    Args:
        job: the columns of ``jobs``.
        spec: the columns of ``specs``.
        absent: the names of the fields that the record did not have.
        last_seq: the record's last_seq, which may be behind that of its log.
        token: the token, in clear text.
        password: the broker's password, in clear text.
    """
    # Most jobs share the cached values, so each record gets its own copy.
    broker = None if spec.broker is None else dict(_decode_broker(spec.broker))
    artifacts = [] if spec.expected_artifacts == "[]" else list(_decode_artifacts(spec.expected_artifacts))
    missing: list[str] = []
    if broker is not None and not _WHOLE_BROKER.issubset(broker):
        missing = [f"broker.{name}" for name in ("tls", "username") if name not in broker]
    if absent:
        names = absent.split(" ")
        if EMPTY_TOKEN_MARKER in names:
            names.remove(EMPTY_TOKEN_MARKER)
            token = token or ""
        missing += [
            name
            for name in names
            if (name == "broker.password" and password is None and broker is not None)
            or (name == "auth_token" and token is None)
            or (name == "agent_session" and job.agent_session is None)
            or (name == "timeout_sec" and job.timeout_sec == DEFAULT_TIMEOUT_SEC)
            or (name == "idle_timeout_sec" and job.idle_timeout_sec == DEFAULT_IDLE_TIMEOUT_SEC)
            or (name == "expected_artifacts" and not artifacts)
        ]
    # By position: keywords take twice as long, and this runs once per job.
    return LegacyRecord(
        job.job_id,
        job.status,
        job.created_ms // 1000 * 1000,
        job.updated_ms // 1000 * 1000,
        spec.prompt,
        job.agent,
        job.agent_session,
        broker,
        password,
        job.topic_prefix,
        job.timeout_sec,
        job.idle_timeout_sec,
        artifacts,
        last_seq,
        token,
        tuple(sorted(missing)) if missing else (),
        {} if spec.extra == "{}" else json.loads(spec.extra),
    )


@lru_cache(maxsize=256)
def _decode_broker(text: str) -> dict[str, Json]:
    found: dict[str, Json] = json.loads(text)
    return found


@lru_cache(maxsize=256)
def _decode_artifacts(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
