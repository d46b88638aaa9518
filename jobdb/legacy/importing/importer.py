"""The import of an old registry: under its lock, in one transaction, verified before the commit, repeatable.

Called by the command line and by applications that have a Registry. Reads the folder and never writes to it. Every file
that is not clearly valid is named in the report and left in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...crypto.vault import Vault
from ...engines.sql.statements import TOKENS
from ...engines.store import Transaction
from ...errors import Busy
from ..database.job_queries import find_job
from ..database.job_state import database_state
from ..database.statements import LEGACY
from ..folder.layout import (
    LOG_SUFFIX,
    RECORD_SUFFIX,
    Layout,
    classify,
    count_records,
    find_registry,
    list_audit_folder,
    list_jobs_folder,
    printable_name,
)
from ..folder.lock import DEFAULT_LOCK_TIMEOUT_SEC, RegistryLock, registry_lock
from ..folder.regular_file import LINK_DAMAGE
from ..format.damage import Damaged, DamageKind, TrustWarning
from ..format.entry_kind import EntryKind
from ..format.jobdb_state import newer_state_reason
from ..report import ImportReport, Outcome, Progress, ReportRow
from .batch_writer import BatchWriter, Planned
from .batches import MAX_BATCH_JOBS, ordered_batches
from .gc_threshold import raised_gc_threshold
from .normalized_job import DeferredJob, NormalizedJob
from .plan import NEW_JOB, Plan, keep_token, plan_existing
from .reader_protocol import ReadResult
from .readers import Reader, open_reader
from .verification import Verification

if TYPE_CHECKING:
    from ...registry import Registry


def import_registry(
    registry: Registry,
    directory: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    allow_damaged: bool = False,
    lock_timeout_sec: float = DEFAULT_LOCK_TIMEOUT_SEC,
    progress: Progress | None = None,
) -> ImportReport:
    """Import an old registry into the database. Importing it again imports the changes since then.

    Args:
        registry: the registry to import to.
        directory: the workspace (``.mam/jobs`` or ``.hermes/jobs`` is found in it) or the folder of records itself.
        dry_run: True to write nothing and only report what would be done.
        allow_damaged: True if damaged files should not make the report's ``ok`` False.
        lock_timeout_sec: how long to wait for the old registry's lock, in seconds.
        progress: called with the number of records done and the total.

    Returns:
        The report, with the outcome and the reason for each file.

    Raises:
        InvalidInput: there is no registry, or more than one.
        Busy: the old registry's lock, or the database, was held by another process for too long.
        KeyProblem: the master key cannot be used.
        Unusable: the folder or its lock cannot be read, or the disk failed. Nothing was written.

    Example:
        with Registry.open("sqlite:///jobs.db") as registry:
            report = import_registry(registry, "workspace", dry_run=True)
            print(report.ok, report.as_dict()["imported"])
    """
    layout = find_registry(Path(directory))
    report = ImportReport(str(layout.jobs), dry_run=dry_run, allow_damaged=allow_damaged)
    store = registry.store
    LEGACY.load()
    with (
        registry_lock(layout.jobs, timeout_sec=lock_timeout_sec, create=False) as lock,
        raised_gc_threshold(),
        store.read() if dry_run else store.write() as tx,
    ):
        run = _Import(tx, registry.engine.vault, layout, report, stores_nul=store.traits.stores_nul)
        run.import_all(progress or (lambda done, total: None))
        _refuse_unlocked_writer(lock)
    return report


def _refuse_unlocked_writer(lock: RegistryLock) -> None:
    if lock.writer_appeared():
        raise Busy(
            f"an old writer began to use {lock.path.parent} during the import; nothing was written",
            waited_sec=0.0,
            advice="import again",
        )


class _Import:
    """A run of an import."""

    def __init__(
        self, tx: Transaction, vault: Vault, layout: Layout, report: ImportReport, *, stores_nul: bool
    ) -> None:
        self._tx = tx
        self._vault = vault
        self._layout = layout
        self._report = report
        self._verification = Verification(tx, vault)
        self._writer = BatchWriter(tx, vault, self._verification)
        self._accepts_nul = stores_nul
        self._done = 0
        self._event_logs_listed = 0
        self._event_logs_read = 0

    def import_all(self, progress: Progress) -> None:
        """Import everything; in a dry run, do everything except writing."""
        with open_reader(self._layout) as reader:
            total = count_records(self._layout)
            jobs = self._legal_jobs(reader.read(self._record_names(), defer_pending=total > MAX_BATCH_JOBS))
            for batch in ordered_batches(jobs, lambda ids: self._read_deferred(reader, ids)):
                if self._verification.jobs_before and not self._report.dry_run:
                    self._tx.lock_jobs(source.job_id for source in batch)
                planned = [self._plan(source) for source in batch]
                if not self._report.dry_run:
                    self._writer.write(planned)
                for source, plan in planned:
                    self._report_job(source, plan)
                self._done += len(batch)
                progress(min(self._done, total), total)
        self._report_orphan_logs()
        self._verification.finish()
        progress(total, total)

    def _legal_jobs(self, results: Iterable[tuple[str, ReadResult]]) -> Iterator[NormalizedJob | DeferredJob]:
        """Yield the valid records among the files; report the others."""
        for name, result in results:
            if not self._accepts_nul and isinstance(result, NormalizedJob) and result.unpack_values().contains_nul():
                result = Damaged(DamageKind.NOT_HELD, "it contains a NUL character, which PostgreSQL cannot store")
            if isinstance(result, Damaged):
                self._report_damage(name, result)
                self._done += 1
            elif result is not None:
                yield result

    def _record_names(self) -> Iterator[str]:
        """Yield the names of the records; count or report the other entries of their folder."""
        for name in list_jobs_folder(self._layout):
            if name.endswith(RECORD_SUFFIX):
                yield name
            elif name.endswith(LOG_SUFFIX):
                self._event_logs_listed += 1
            else:
                reason = "not a file of the registry"
                if classify(name) is EntryKind.LEFTOVER:
                    reason = "a temporary file that a writer left behind"
                self._report.add(ReportRow(printable_name(name), Outcome.IGNORED, reason))

    def _read_deferred(self, reader: Reader, job_ids: Iterator[str]) -> Iterator[NormalizedJob]:
        """Read the jobs that were deferred, with their logs."""
        for job in self._legal_jobs(reader.read(job_id + RECORD_SUFFIX for job_id in job_ids)):
            assert isinstance(job, NormalizedJob)
            yield job

    def _plan(self, source: NormalizedJob) -> Planned:
        """Return a job, with the token that it keeps, and the plan for it."""
        row = find_job(self._tx, source.job_id) if self._verification.jobs_before else None
        if row is None:
            return source, self._plan_new(source)
        kept = keep_token(source, row, self._vault)
        digests = {seq: bytes(digest) for seq, digest in self._tx.all(LEGACY.legacy_digests, job=row.row_id)}
        ahead = newer_state_reason(source.state, database_state(self._tx, row)) if source.state else ""
        keeps_token = kept.token != source.token
        return kept, plan_existing(kept, row, digests, self._vault, keeps_token=keeps_token, ahead=ahead)

    def _plan_new(self, source: NormalizedJob) -> Plan:
        """Plan a missing job as new, unless it was pruned: it must not be restored with its tokens."""
        if not self._has_tombstones:
            return NEW_JOB
        tombstone = self._tx.one(TOKENS.tombstone, job_id=source.job_id)
        if tombstone is None:
            return NEW_JOB
        _unremembered, pruned_ms = tombstone
        if source.unpack_values().job.updated_ms > pruned_ms:
            return NEW_JOB
        return Plan(Outcome.SKIPPED, "it was here and is pruned, and its record has not changed since", None)

    @cached_property
    def _has_tombstones(self) -> bool:
        """True if any job was ever pruned here."""
        return self._tx.one(LEGACY.legacy_tombstones) is not None

    def _report_job(self, source: NormalizedJob, plan: Plan) -> None:
        if plan.writes:
            self._report.events += source.event_count if plan.is_new else len(plan.new_events)
        if plan.is_new and source.event_count and not (source.state and "subscribers" in source.state):
            self._report.without_subscribers += 1
        self._event_logs_read += source.has_event_log
        job_id = source.job_id
        reason = plan.reason
        if source.notes or source.trust_note:
            reason = "; ".join(dict.fromkeys(filter(None, (plan.reason, *source.notes, source.trust_note))))
        warning = TrustWarning(source.warning) if source.warning else None
        self._report.add(
            ReportRow._make((job_id + RECORD_SUFFIX, plan.outcome, reason, job_id, None, source.event_count, warning))
        )
        for path, damaged in source.damage:
            self._report_damage(path, damaged, job_id)

    def _report_damage(self, path: str, damaged: Damaged, job_id: str | None = None) -> None:
        self._report.add(ReportRow(printable_name(path), Outcome.DAMAGED, damaged.reason, job_id, damage=damaged.kind))

    def _report_orphan_logs(self) -> None:
        """Report logs without a record; if as many event logs were read as listed, no event log is such a log."""
        if self._event_logs_read != self._event_logs_listed:
            for name in list_jobs_folder(self._layout):
                if classify(name) is EntryKind.EVENT_LOG:
                    self._report_if_orphan(name, name[: -len(LOG_SUFFIX)])
        if self._layout.audit.is_symlink():
            self._report_damage(f"../{self._layout.audit.name}", LINK_DAMAGE)
        for job_id in list_audit_folder(self._layout):
            self._report_if_orphan(f"../{self._layout.audit.name}/{job_id}", job_id)

    def _report_if_orphan(self, name: str, job_id: str) -> None:
        record = job_id + RECORD_SUFFIX
        if not os.path.lexists(f"{self._layout.jobs}/{record}"):
            self._report_damage(
                name, Damaged(DamageKind.NO_RECORD, f"there is no record {printable_name(record)} that it belongs to")
            )
