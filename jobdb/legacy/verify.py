"""The proof before the commit: everything that an import wrote is read back and compared with what the files held.

Called by the writer after each portion and by the importer at the end, inside the import's transaction. Each job is
rebuilt from the database as an export would write it: every field of its record, for a new job also all that was
worked out from its logs and every event, and its logs byte for byte. At the end the digest over all of that, from the
files and from the database, must be the same, and the number of jobs too.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterator, Sequence
from typing import Any

from ..engines.sql.transaction import Row, Transaction
from ..errors import StorageFailed
from ..vault import Vault
from .layout import EntryKind
from .records import LegacyRecord
from .rows import JobRow, derived, record_of
from .source import SourceJob
from .stored import stored_logs

Json = Any
Written = tuple[int, SourceJob, dict[str, Json] | None]
"""A job's number, what its files hold, and for a new job the columns that were worked out for it."""


class Verification:
    """Compares what was written with what was read, portion by portion, and counts."""

    def __init__(self, tx: Transaction, vault: Vault) -> None:
        self._tx = tx
        self._vault = vault
        self._jobs_before = self._count_jobs()
        self._new = 0
        self._from_files = hashlib.sha256()
        self._from_database = hashlib.sha256()

    @property
    def jobs_before(self) -> int:
        """How many jobs there were before the import."""
        return self._jobs_before

    def check(self, portion: Sequence[Written]) -> None:
        """Reads a portion back.

        Raises:
            StorageFailed: a job is not in the database as it is in its files; the transaction must be rolled back.
        """
        expected = {number: (source, columns) for number, source, columns in portion}
        checked = 0
        for row, events, lines in _stored_jobs(self._tx, sorted(expected)):
            source, columns = expected[row.number]
            record = record_of(row, self._vault)
            wanted, found = _facts(source, columns), _facts_of_row(row, record, events, new=columns is not None)
            self._from_files.update(wanted)
            self._from_database.update(found)
            if wanted != found or not _logs_are_whole(row, source, record, events, lines):
                raise _failed(f"job {row.job_id} is not in the database as it is in its files")
            checked += 1
        self._new += sum(columns is not None for _, columns in expected.values())
        if checked != len(portion):
            raise _failed(f"{len(portion)} jobs were written and {checked} of them are there")

    def finish(self) -> None:
        """Compares the whole.

        Raises:
            StorageFailed: the digests or the number of jobs differ; the transaction must be rolled back.
        """
        if self._from_files.digest() != self._from_database.digest():
            raise _failed("the digest over all jobs is not that of the files")
        if self._count_jobs() != self._jobs_before + self._new:
            raise _failed(f"there are {self._count_jobs()} jobs, not {self._jobs_before} and {self._new} new ones")

    def _count_jobs(self) -> int:
        row = self._tx.one("legacy_count_jobs")
        assert row is not None
        count: int = row[0]
        return count


def _facts(source: SourceJob, columns: dict[str, Json] | None) -> bytes:
    """What the files say of a job, in one canonical form.

    marshal, in the version without references, writes equal values of equal types as equal bytes. ``==`` would take
    1, 1.0 and true for the same.
    """
    if columns is None:
        return source.record.fingerprint()
    events = [
        (event.seq, event.event, event.attempt, event.recorded_ms, event.digest, event.text)
        for event in source.logs.events
    ]
    return marshal.dumps((source.record.fields(), derived(columns), events), 2)


def _facts_of_row(row: JobRow, record: LegacyRecord, events: list[Row], *, new: bool) -> bytes:
    """The same of what the database says."""
    if not new:
        return record.fingerprint()
    return marshal.dumps((record.fields(), derived(row), events), 2)


def _stored_jobs(tx: Transaction, numbers: list[int]) -> Iterator[tuple[JobRow, list[Row], list[Row]]]:
    """The jobs of these numbers, each with its events and kept lines."""
    if not numbers:
        return
    ranges = [(numbers[0], numbers[-1])]
    if numbers[-1] - numbers[0] > 4 * len(numbers):
        ranges = [(number, number) for number in numbers]
    wanted = set(numbers)
    for first, last in ranges:
        events = _Grouped(tx.iterate("legacy_events", first=first, last=last))
        lines = _Grouped(tx.iterate("legacy_lines_of_range", first=first, last=last))
        for values in tx.iterate("legacy_jobs", first=first, last=last):
            row = JobRow(*values)
            if row.number in wanted:
                yield row, events.of(row.number), lines.of(row.number)


class _Grouped:
    """Rows that begin with a job's number, in order of it, taken job by job."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def of(self, number: int) -> list[Row]:
        found: list[Row] = []
        row = self._next
        while row is not None and row[0] <= number:
            if row[0] == number:
                found.append(row[1:])
            row = next(self._rows, None)
        self._next = row
        return found


def _logs_are_whole(row: JobRow, source: SourceJob, record: LegacyRecord, events: list[Row], lines: list[Row]) -> bool:
    """Whether the logs, written again, have the digests of those that were read."""
    if not source.digests:
        return row.event_digest is None and row.audit_digest is None
    logs = stored_logs(row, record, {event[0]: event[-1] for event in events}, ((log, raw) for log, raw in lines))
    digests = {kind: hashlib.sha256(content).digest() for kind, content in logs.items()}
    audit = [EntryKind.AUDIT_LOG, EntryKind.AUDIT_META, EntryKind.AUDIT_STATUS]
    return (source.digests.get(EntryKind.EVENT_LOG, b""), source.digests.get(EntryKind.AUDIT_LOG, b"")) == (
        digests.get(EntryKind.EVENT_LOG, b""),
        b"".join(digests.get(kind, b"") for kind in audit),
    )


def _failed(what: str) -> StorageFailed:
    return StorageFailed(
        f"the import was taken back: {what}. Nothing was written and the files are as they were. Check the disk, run "
        "'jobdb doctor --full', and report this with the file"
    )
