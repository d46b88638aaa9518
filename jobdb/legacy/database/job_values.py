"""The values stored for an imported job, by table: named tuples whose fields are the columns, in order.

Created by the normalization, written by the batch writer, read back by the verification. Calls nothing.

`marshal` refuses named tuples, so they are converted to plain tuples where values pass between processes, which is only
in ``importing/normalized_job.py``.
"""

from __future__ import annotations

from typing import NamedTuple


class JobValues(NamedTuple):
    """The columns of ``jobs`` that an import writes. Times in Unix milliseconds."""

    job_id: str
    status: str
    agent: str
    agent_session: str | None
    topic_prefix: str
    timeout_sec: int
    idle_timeout_sec: int
    has_broker: int
    kid: int
    last_seq: int
    attempt: int
    terminal_seq: int | None
    created_ms: int
    updated_ms: int
    started_ms: int | None
    finished_ms: int | None
    last_event: str | None
    last_event_ms: int | None
    detail: str | None


class SpecValues(NamedTuple):
    """The columns of ``specs`` except the sealed password, which only the importing process has. JSON as text."""

    prompt: str
    broker: str | None
    expected_artifacts: str
    extra: str


class LogForms(NamedTuple):
    """The forms of a job's logs, and the SHA-256 of each log; None for a log that did not exist."""

    event_form: str | None
    event_digest: bytes | None
    audit_form: str | None
    audit_digest: bytes | None
    """The digest of the audit log, followed by those of its small files."""


class OriginValues(NamedTuple):
    """The columns of ``imports``: facts about the job in the old registry.

    Attributes:
        updated_ms: when the record was last written, Unix milliseconds.
        record_seq: the record's last_seq.
        job_seq: the corrected last_seq: the record's, or the log's if that is ahead.
        absent: the names of the fields that the record did not have, and the markers of `key_markers`.
    """

    updated_ms: int
    record_seq: int
    job_seq: int
    absent: str
    event_form: str | None
    event_digest: bytes | None
    audit_form: str | None
    audit_digest: bytes | None

    @property
    def forms(self) -> LogForms:
        """The form of its logs."""
        return LogForms(self.event_form, self.event_digest, self.audit_form, self.audit_digest)


class KeyValues(NamedTuple):
    """The columns of ``tokens`` except the sealed token; all None for a job without a key."""

    kid: int | None
    imported: int | None
    created_ms: int | None
    expires_ms: int | None
    revoked_ms: int | None


class ClaimValues(NamedTuple):
    """The columns of ``jobs`` that a claim sets: an imported job is unclaimed."""

    worker: str | None
    lease_until_ms: int | None


class EventValues(NamedTuple):
    """The columns of ``events``."""

    seq: int
    event: str
    attempt: int | None
    recorded_ms: int
    digest: bytes
    payload: str


class LineValues(NamedTuple):
    """The columns of ``import_lines``: lines of a log that are not events. Secrets in them are masked."""

    log: str
    number: int
    raw: bytes


NO_KEY = KeyValues(None, None, None, None, None)
UNCLAIMED = ClaimValues(None, None)
STORED_COLUMNS = (
    *JobValues._fields,
    *SpecValues._fields,
    *OriginValues._fields,
    *KeyValues._fields,
    *ClaimValues._fields,
)
"""The columns of ``legacy_new_job_rows`` after those with sealed secrets."""
