"""The plan for a job of the old registry, given its state in the database.

Called by the importer, for dry runs too: planning writes nothing, and the batch writer executes the plan. The rule is
that nothing newer is overwritten, no ended job becomes active again, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...crypto.vault import Vault
from ...engines.sql.sealer import token_binding
from ...model import JobStatus
from ..database.job_row import JobRow, record_from_row
from ..database.job_values import EventValues, KeyValues
from ..database.key_markers import NoTokenReason
from ..format.jobdb_state import current_kid
from ..format.timestamps import format_time
from ..report import Outcome
from .normalization import replace_key
from .normalized_job import NormalizedJob, StoredValues

_IMPORTED, _UPDATED = Outcome.IMPORTED, Outcome.UPDATED  # a look-up in an enumeration is slow, and there are many


@dataclass(slots=True)
class Plan:
    """The plan for a job.

    Attributes:
        outcome: imported, updated, unchanged or skipped.
        reason: why, for a job that is not imported.
        row_id: the job's row id in the database; None for a new job.
        new_events: for an existing job, the events in its logs that the database does not have.
        only_logs: True if the record is the same and the job has changed here, so that only events are added.
        keeps_token: True if the record has lost its token, so that the one in the database is kept.
        stored_kid: the version of the job's current token in the database; 0: it has none.
    """

    outcome: Outcome
    reason: str
    row_id: int | None
    new_events: Sequence[EventValues] = ()
    only_logs: bool = False
    keeps_token: bool = False
    stored_kid: int = 0

    @property
    def is_new(self) -> bool:
        """True if the job is to be inserted."""
        return self.outcome is _IMPORTED

    @property
    def writes(self) -> bool:
        """True if anything is to be written."""
        return self.outcome is _IMPORTED or self.outcome is _UPDATED


NEW_JOB = Plan(Outcome.IMPORTED, "", None)
"""The plan for a job that the database does not have."""


def keep_token(source: NormalizedJob, row: JobRow, vault: Vault) -> NormalizedJob:
    """Return the job with its token from the database if its record has lost it; otherwise the job as it is.

    Removing the token from a file must not turn off signing for the job.
    """
    if row.token is None:
        return source
    kid = KeyValues._make(source.unpack_rows().key).kid or 0
    if source.token:
        # The record has lost its state: its token still has the version with which it was imported.
        if kid >= row.kid or row.kid != row.imported_kid:
            return source
        return replace_key(source, row.kid, token=source.token, note=source.trust_note)
    if current_kid(source.state) > row.kid:
        return source
    if row.token_revoked_ms is not None:
        note = source.trust_note if kid else _REVOKED_HERE
        return replace_key(
            source, row.kid, token=None, revoked_ms=row.token_revoked_ms, no_token_reason=row.no_token_reason, note=note
        )
    return replace_key(
        source,
        row.kid,
        token=vault.unseal(row.token, bound_to=token_binding(row.job_id, row.kid)),
        note="it has no auth_token any more: the one here was kept, and events must be signed as before",
    )


_REVOKED_HERE = "it has no auth_token, and the one here is revoked: no event is accepted until it is rotated"


def plan_existing(
    source: NormalizedJob,
    row: JobRow,
    digests: Mapping[int, bytes],
    vault: Vault,
    *,
    keeps_token: bool = False,
    ahead: str = "",
) -> Plan:
    """Return the plan for a job that the database has.

    Args:
        source: the job in the old registry.
        row: the job in the database.
        digests: the digests of its events in the database, by seq.
        vault: unseals the job's secrets in the database.
        keeps_token: True if the job's token is the one in the database.
        ahead: why its state is newer than the database; empty if it is not.
    """
    stored = source.unpack_values()
    here, there = record_from_row(row, vault), stored.record(source.token, source.password)
    same_record = here.fingerprint() == there.fingerprint()
    if not ahead and not row.kid and stored.key.kid:
        ahead = source.trust_note or "its events must be signed"
    if same_record and not ahead and _same_logs(stored, row, digests):
        return Plan(Outcome.UNCHANGED, "", row.row_id)
    reason = "" if same_record else _skip_reason(source, stored, row)
    reason = _conflicting_event(stored, digests) or reason
    if reason:
        return Plan(Outcome.SKIPPED, reason, row.row_id)
    new_events = [event for event in stored.events if event.seq not in digests]
    only_logs = same_record and not row.unchanged_since_import
    return Plan(
        outcome=Outcome.UPDATED,
        reason=ahead,
        row_id=row.row_id,
        new_events=new_events,
        only_logs=only_logs,
        keeps_token=keeps_token,
        stored_kid=row.kid,
    )


def _same_logs(stored: StoredValues, row: JobRow, digests: Mapping[int, bytes]) -> bool:
    if not row.imported:
        # Registered here and exported: the logs contain nothing that is not here already.
        return not _has_new_events(stored, digests)
    origin = stored.origin
    return (row.event_digest == origin.event_digest and row.audit_digest == origin.audit_digest) or (
        not row.unchanged_since_import and not _has_new_events(stored, digests)
    )


def _has_new_events(stored: StoredValues, digests: Mapping[int, bytes]) -> bool:
    """Return whether the logs contain events that are not among ``digests``."""
    return any(digests.get(event.seq) != event.digest for event in stored.events)


def _conflicting_event(stored: StoredValues, digests: Mapping[int, bytes]) -> str:
    """Return why an event conflicts with the stored one of its seq; empty if none does."""
    for event in stored.events:
        if digests.get(event.seq, event.digest) != event.digest:
            return f"event {event.seq} has other content here"
    return ""


def _skip_reason(source: NormalizedJob, stored: StoredValues, row: JobRow) -> str:
    """Return why a job whose record differs is left unchanged here; empty if it may be updated."""
    updated_ms = stored.origin.updated_ms
    if row.updated_ms // 1000 * 1000 > updated_ms:
        return f"newer here: {format_time(row.updated_ms)}, in the file {format_time(updated_ms)}"
    if JobStatus(row.status).terminal and source.status != row.status:
        return f"it has ended here as {row.status}; the file says {source.status}"
    if row.token_revoked_ms is not None and (
        not row.no_token_reason or (row.no_token_reason == NoTokenReason.REVOKED and source.token)
    ):
        return "its token was revoked here"
    if row.unchanged_since_import:
        return ""
    if row.kid > row.imported_kid:
        return "its token was rotated here"
    if row.lease_until_ms is not None or row.worker is not None:
        return f"it was claimed here, by {row.worker}"
    if stored.origin.job_seq < row.last_seq:
        return f"it has {row.last_seq} events here, {stored.origin.job_seq} in the file"
    if row.updated_ms // 1000 * 1000 == updated_ms:
        return "changed here and there in the same second"
    return ""
