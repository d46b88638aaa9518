"""What is to become of one job of the old registry, given what the database has of it.

Called by the importer, for dry runs too: a plan is made without writing, and the writing does what the plan says.
The rule is that nothing newer is overwritten, nothing that ended comes back to life, and nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model import JobStatus
from ..vault import Vault
from .layout import EntryKind
from .log_lines import LogEvent
from .records import format_ms
from .report import Outcome
from .rows import JobRow, record_of
from .source import SourceJob


@dataclass(slots=True)
class Plan:
    """What to do with one job.

    Attributes:
        outcome: imported, updated, unchanged or skipped.
        reason: why, for a job that is not imported.
        number: the job's number in the database, if it is there.
        new_events: those of its logs that the database does not have.
        only_logs: the record is the same, and the job has changed here: nothing but its logs is added to.
    """

    outcome: Outcome
    reason: str
    number: int | None
    new_events: list[LogEvent]
    only_logs: bool = False

    @property
    def writes(self) -> bool:
        return self.outcome in (Outcome.IMPORTED, Outcome.UPDATED)


def plan_new(source: SourceJob) -> Plan:
    """For a job that the database does not have."""
    return Plan(Outcome.IMPORTED, "", None, source.logs.events)


def plan_known(source: SourceJob, row: JobRow, digests: dict[int, bytes], vault: Vault) -> Plan:
    """For a job that the database has.

    Args:
        source: the job in the old registry.
        row: the job here.
        digests: of its events here, by seq.
        vault: unseals what the job has here.
    """
    here = record_of(row, vault)
    same_record = here.fingerprint() == source.record.fingerprint()
    new_events = [event for event in source.logs.events if event.seq not in digests]
    if same_record and _same_logs(source, row, digests):
        return Plan(Outcome.UNCHANGED, "", row.number, [])
    reason = _why_not(source, row, digests, same_record=same_record)
    if reason:
        return Plan(Outcome.SKIPPED, reason, row.number, [])
    return Plan(Outcome.UPDATED, "", row.number, new_events, same_record and not row.untouched)


def _same_logs(source: SourceJob, row: JobRow, digests: dict[int, bytes]) -> bool:
    if not row.imported:
        # Registered here and exported: the logs hold nothing that is not here already.
        return not source.news(digests)
    return (
        row.event_digest == source.digests.get(EntryKind.EVENT_LOG)
        and row.audit_digest == source.digests.get(EntryKind.AUDIT_LOG)
    ) or (not row.untouched and not source.news(digests))


def _why_not(source: SourceJob, row: JobRow, digests: dict[int, bytes], *, same_record: bool) -> str:
    """Why a job that differs is left as it is here; empty if it may be updated."""
    theirs = source.record
    for event in source.logs.events:
        if digests.get(event.seq, event.digest) != event.digest:
            return f"event {event.seq} has another content here"
    if same_record:
        return ""
    if row.updated_ms // 1000 * 1000 > theirs.updated_ms:
        return f"newer here: {format_ms(row.updated_ms)}, in the file {format_ms(theirs.updated_ms)}"
    if JobStatus(row.status).terminal and theirs.status != row.status:
        return f"it has ended here as {row.status}; the file says {theirs.status}"
    if row.untouched:
        return ""
    if row.kid > 1:
        return "its token was rotated here"
    if row.lease_until_ms is not None or row.worker is not None:
        return f"it was claimed here, by {row.worker}"
    if source.last_seq < row.last_seq:
        return f"it has {row.last_seq} events here, {source.last_seq} in the file"
    if row.updated_ms // 1000 * 1000 == theirs.updated_ms:
        return "changed here and there in the same second"
    return ""
