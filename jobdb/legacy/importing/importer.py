"""The import of an old registry: under its lock, in one transaction, proven before the commit, repeatable.

Called by the command line and by anyone who has a Registry. Reads the folder, never writes to it. Everything that is
not plainly legal is named in the report and left where it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...crypto.vault import Vault
from ...engines.sql.statements import TOKENS
from ...engines.store import Transaction
from ...errors import Busy
from ..database.job_row import JobRow
from ..database.job_state import database_state
from ..database.statements import LEGACY
from ..folder.layout import (
    LINK,
    LOG_SUFFIX,
    RECORD_SUFFIX,
    EntryKind,
    Layout,
    classify,
    count_records,
    find_registry,
    list_audit_folder,
    list_jobs_folder,
    printable_name,
)
from ..folder.lock import RegistryLock, registry_lock
from ..format.damage import Damaged, DamageKind
from ..format.jobdb_state import newer_state_reason
from ..report import ImportReport, Outcome, ReportRow
from .batch_writer import BatchWriter
from .batches import MAX_BATCH_JOBS, ordered_batches
from .gc_threshold import raised_gc_threshold
from .normalization import JOB_COLUMNS, DeferredJob, NormalizedJob
from .plan import NEW_JOB, Plan, keep_token, plan_existing
from .read_results import ReadResult
from .readers import Reader, open_reader
from .verification import Verification

if TYPE_CHECKING:
    from ...registry import Registry

DEFAULT_LOCK_TIMEOUT_SEC = 30.0

Progress = Callable[[int, int], None]


def import_registry(
    registry: Registry,
    directory: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    allow_damaged: bool = False,
    lock_timeout_sec: float = DEFAULT_LOCK_TIMEOUT_SEC,
    progress: Progress | None = None,
) -> ImportReport:
    """Takes an old registry over into the database. Doing it again takes over what has changed since.

    Args:
        registry: where to.
        directory: the workspace (``.mam/jobs`` or ``.hermes/jobs`` is found in it) or the folder of records itself.
        dry_run: write nothing; the report says what would be done.
        allow_damaged: damaged files do not make the report's ``ok`` false.
        lock_timeout_sec: how long to wait for the old registry's lock, in seconds.
        progress: called with the number of records that are done and of all there are.

    Returns:
        The report: a row for each file, with the reason.

    Raises:
        InvalidInput: there is no registry, or more than one.
        Busy: the old registry's lock, or the database, was held by somebody else for too long.
        KeyProblem: the master key cannot be used.
        Unusable: the folder or its lock cannot be read, or the disk failed. Nothing was written then.
    """
    layout = find_registry(Path(directory))
    report = ImportReport(str(layout.jobs), dry_run=dry_run, allow_damaged=allow_damaged)
    store = registry.engine.store
    LEGACY.load()
    with (
        registry_lock(layout.jobs, timeout_sec=lock_timeout_sec, create=False) as lock,
        raised_gc_threshold(),
        store.read() if dry_run else store.write() as tx,
    ):
        run = _Import(tx, registry.engine.vault, layout, report, sqlite=registry.url.engine == "sqlite")
        run.import_all(progress or (lambda done, total: None))
        _refuse_unlocked_writer(lock)
    return report


def _refuse_unlocked_writer(lock: RegistryLock) -> None:
    if lock.writer_appeared():
        raise Busy(
            f"an old writer began to use {lock.path.parent} during the import; nothing was written. Import again",
            waited_sec=0.0,
        )


class _Import:
    """One run of an import: what its steps share."""

    def __init__(self, tx: Transaction, vault: Vault, layout: Layout, report: ImportReport, *, sqlite: bool) -> None:
        self._tx = tx
        self._vault = vault
        self._layout = layout
        self._report = report
        self._verification = Verification(tx, vault)
        self._writer = BatchWriter(tx, vault, self._verification)
        self._accepts_nul = sqlite
        self._done = 0
        self._logs_not_read = 0
        self._tombstones: bool | None = None

    def import_all(self, progress: Progress) -> None:
        """Takes over what there is; in a dry run, all but the writing."""
        with open_reader(self._layout) as reader:
            total = count_records(self._layout)
            jobs = self._legal_jobs(reader.read(self._record_names(), defer_pending=total > MAX_BATCH_JOBS))
            for batch in ordered_batches(jobs, lambda ids: self._read_deferred(reader, ids)):
                if self._verification.jobs_before and not self._report.dry_run:
                    self._tx.lock_jobs(source.job_id for source in batch)
                planned = [self._planned(source) for source in batch]
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
        """The legal records among files; the others go into the report."""
        for name, result in results:
            if not self._accepts_nul and isinstance(result, NormalizedJob) and result.unpack_values().contains_nul():
                result = Damaged(DamageKind.NOT_HELD, "it holds a NUL character, which PostgreSQL cannot store")
            if isinstance(result, Damaged):
                self._report_damage(name, result)
                self._done += 1
            elif result is not None:
                yield result

    def _record_names(self) -> Iterator[str]:
        """The names of the records; the other entries of their folder are counted or reported."""
        for name in list_jobs_folder(self._layout):
            if name.endswith(RECORD_SUFFIX):
                yield name
            elif name.endswith(LOG_SUFFIX):
                self._logs_not_read += 1
            else:
                reason = "not a file of the registry"
                if classify(name) is EntryKind.LEFTOVER:
                    reason = "a temporary file that a writer left behind"
                self._report.add(ReportRow(printable_name(name), Outcome.IGNORED, reason))

    def _read_deferred(self, reader: Reader, job_ids: Iterator[str]) -> Iterator[NormalizedJob]:
        """Jobs that were read before and put off."""
        for job in self._legal_jobs(reader.read(job_id + RECORD_SUFFIX for job_id in job_ids)):
            assert isinstance(job, NormalizedJob)
            yield job

    def _report_orphan_logs(self) -> None:
        """Names the logs to which no record belongs."""
        if self._logs_not_read:
            for name in list_jobs_folder(self._layout):
                if classify(name) is EntryKind.EVENT_LOG:
                    self._report_if_orphan(name, name[: -len(LOG_SUFFIX)])
        if self._layout.audit.is_symlink():
            self._report_damage(f"../{self._layout.audit.name}", LINK)
        for job_id in list_audit_folder(self._layout):
            self._report_if_orphan(f"../{self._layout.audit.name}/{job_id}", job_id)

    def _report_if_orphan(self, name: str, job_id: str) -> None:
        record = job_id + RECORD_SUFFIX
        if not os.path.lexists(f"{self._layout.jobs}/{record}"):
            self._report_damage(
                name, Damaged(DamageKind.NO_RECORD, f"there is no record {printable_name(record)} that it belongs to")
            )

    def _report_damage(self, name: str, damaged: Damaged, job_id: str | None = None) -> None:
        self._report.add(ReportRow(printable_name(name), Outcome.DAMAGED, damaged.reason, job_id, damage=damaged.kind))

    def _report_job(self, source: NormalizedJob, plan: Plan) -> None:
        if plan.writes:
            self._report.events += source.events if plan is NEW_JOB else len(plan.new_events)
        if plan is NEW_JOB and source.events and not (source.state and "subscribers" in source.state):
            self._report.without_subscribers += 1
        self._logs_not_read -= source.has_event_log
        job_id = source.job_id
        reason = plan.reason
        if source.notes or source.trust_note:
            reason = "; ".join(dict.fromkeys(filter(None, (plan.reason, *source.notes, source.trust_note))))
        warning = source.warning
        self._report.add_values(job_id + RECORD_SUFFIX, plan.outcome, reason, job_id, None, source.events, warning)
        for name, kind, why in source.damage:
            self._report_damage(name, Damaged(DamageKind(kind), why), job_id)

    def _plan_new(self, source: NormalizedJob) -> Plan:
        """Plan a job that is not there as new, unless it is pruned: it must not come back to life with its tokens."""
        if self._tombstones is None:
            self._tombstones = self._tx.one(LEGACY.legacy_tombstones) is not None
        if not self._tombstones:
            return NEW_JOB
        row = self._tx.one(TOKENS.tombstone, job_id=source.job_id)
        if row is None or dict(zip(JOB_COLUMNS, source.unpack_values().job, strict=True))["updated_ms"] > row[1]:
            return NEW_JOB
        return Plan(Outcome.SKIPPED, "it was here and is pruned, and its record has not changed since", None, [])

    def _planned(self, source: NormalizedJob) -> tuple[NormalizedJob, Plan]:
        if not self._verification.jobs_before:
            return source, self._plan_new(source)
        found = self._tx.one(LEGACY.legacy_job, job_id=source.job_id)
        if found is None:
            return source, self._plan_new(source)
        row = JobRow(*found)
        kept = keep_token(source, row, self._vault)
        digests = {seq: bytes(digest) for seq, digest in self._tx.all(LEGACY.legacy_digests, job=row.number)}
        ahead = newer_state_reason(source.state, database_state(self._tx, row)) if source.state else ""
        keeps_token = kept.token != source.token
        return kept, plan_existing(kept, row, digests, self._vault, keeps_token=keeps_token, ahead=ahead)
