"""The reports of imports and exports: one row per file, counts, and the overall result.

Created by the importer and the exporter, read by the command line and by applications. The rows of a large registry are
kept in an unnamed temporary file, so that memory stays bounded.
"""

from __future__ import annotations

import marshal
import os
import tempfile
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from .format.damage import DamageKind, TrustWarning
from .frames import read_frame, write_frame

Json = Any
Progress = Callable[[int, int], None]
"""A callback that takes the number of records or jobs done, and the total."""

_BYTES_IN_MEMORY = 1 << 20
_ROWS_PER_FRAME = 250


class Outcome(StrEnum):
    """The outcome for a file."""

    IMPORTED = "imported"
    EXPORTED = "exported"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    DAMAGED = "damaged"
    IGNORED = "ignored"

    __hash__ = str.__hash__  # the hash of enumerations is implemented in Python; a count is looked up for every file


class ReportRow(NamedTuple):
    """A row of a report: the outcome for one file.

    Attributes:
        file: its path within the registry's folder; the audit log's begins with ``../``.
        outcome: the outcome.
        reason: the reason, or a note; may be empty.
        job_id: the job, if the file belongs to one.
        damage: the kind of damage, for a damaged file.
        events: the number of events in its logs.
        warning: why its events are trusted less, or not at all; ``reason`` explains it.
    """

    file: str
    outcome: Outcome
    reason: str = ""
    job_id: str | None = None
    damage: DamageKind | None = None
    events: int = 0
    warning: TrustWarning | None = None

    def as_dict(self) -> dict[str, Json]:
        """Return the row, JSON-ready, under stable names."""
        return {
            "file": self.file,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "job_id": self.job_id,
            "damage": self.damage.value if self.damage else None,
            "events": self.events,
            "warning": self.warning.value if self.warning else None,
        }


class Report:
    """The base class of reports: rows and counts. Close it after use, or let it be garbage-collected."""

    outcomes: tuple[Outcome, ...] = ()

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.counts = dict.fromkeys(self.outcomes, 0)
        self.events = 0
        self._rows: list[tuple[Json, ...]] = []
        self._spool = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - lives as long as the report
            _BYTES_IN_MEMORY
        )

    def add(self, row: ReportRow) -> None:
        """Add a file's row and count its outcome."""
        self.counts[row.outcome] += 1
        self._rows.append(_to_plain(row))
        if len(self._rows) >= _ROWS_PER_FRAME:
            self._flush()

    def rows(self, wanted: Callable[[Outcome], bool] = lambda outcome: True) -> Iterator[ReportRow]:
        """Yield the rows in the order in which the files were processed.

        Args:
            wanted: returns whether to include the rows of an outcome; by default all are included.
        """
        self._flush()
        self._spool.seek(0)
        while True:
            try:
                packed = read_frame(self._spool)
            except EOFError:
                return
            for row in map(_from_plain, marshal.loads(packed)):
                if wanted(row.outcome):
                    yield row

    def _flush(self) -> None:
        if self._rows:
            self._spool.seek(0, os.SEEK_END)
            write_frame(self._spool, marshal.dumps(self._rows))
            self._rows = []

    @property
    def ok(self) -> bool:
        """True if everything went as intended; decides the exit code."""
        return True

    def as_dict(self) -> dict[str, Json]:
        """Return the summary without the rows, JSON-ready, under stable names."""
        counts = {outcome.value: count for outcome, count in self.counts.items()}
        return {"folder": self.folder, "ok": self.ok, "events": self.events, **counts}

    def close(self) -> None:
        """Close the temporary file."""
        self._spool.close()


class ImportReport(Report):
    """The report of an import or, with ``dry_run``, of what it would do.

    Attributes:
        folder: the folder of records that was read.
        dry_run: True if nothing was written.
        allow_damaged: True if damaged files are not a failure.
        counts: the number of files per outcome.
        warnings: the number of jobs per warning.
        without_subscribers: the number of new jobs with events but without the state of any subscriber.
        events: the number of added events.
    """

    outcomes = (
        Outcome.IMPORTED,
        Outcome.UPDATED,
        Outcome.UNCHANGED,
        Outcome.SKIPPED,
        Outcome.DAMAGED,
        Outcome.IGNORED,
    )

    def __init__(self, folder: str, *, dry_run: bool, allow_damaged: bool) -> None:
        super().__init__(folder)
        self.dry_run = dry_run
        self.allow_damaged = allow_damaged
        self.warnings = dict.fromkeys(TrustWarning, 0)
        self.without_subscribers = 0

    def add(self, row: ReportRow) -> None:
        """Add a file's row and count its outcome and its warning."""
        if row.warning:
            self.warnings[row.warning] += 1
        super().add(row)

    @property
    def ok(self) -> bool:
        """True if no file is damaged, or damaged files were allowed."""
        return self.allow_damaged or not self.counts[Outcome.DAMAGED]

    def as_dict(self) -> dict[str, Json]:
        """Return the summary without the rows, JSON-ready, under stable names."""
        return {**super().as_dict(), "dry_run": self.dry_run}

    def trust(self) -> dict[str, Json]:
        """Return the number of jobs with less than full trust, JSON-ready, under stable names."""
        found: dict[str, Json] = {warning.value: count for warning, count in self.warnings.items()}
        return {**found, "without_subscribers": self.without_subscribers}


class ExportReport(Report):
    """The report of an export.

    Attributes:
        folder: the folder of records that was written.
        secrets_left_out: the number of jobs with a token or password that was not written.
        counts: the number of jobs per outcome.
        events: the number of event lines in the written logs.
    """

    outcomes = (Outcome.EXPORTED, Outcome.UNCHANGED, Outcome.SKIPPED)

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.secrets_left_out = 0

    @property
    def ok(self) -> bool:
        """True if no job was skipped because it is newer in the folder."""
        return not self.counts[Outcome.SKIPPED]

    def as_dict(self) -> dict[str, Json]:
        """Return the summary without the rows, JSON-ready, under stable names."""
        return {**super().as_dict(), "secrets_left_out": self.secrets_left_out}


def _to_plain(row: ReportRow) -> tuple[Json, ...]:
    """Convert a row to the plain values that `marshal` takes."""
    damage, warning = row.damage and row.damage.value, row.warning and row.warning.value
    return row.file, row.outcome.value, row.reason, row.job_id, damage, row.events, warning


def _from_plain(values: tuple[Json, ...]) -> ReportRow:
    """Convert plain values back to the row passed to `_to_plain`."""
    file, outcome, reason, job_id, damage, events, warning = values
    return ReportRow(
        file=file,
        outcome=Outcome(outcome),
        reason=reason,
        job_id=job_id,
        damage=damage and DamageKind(damage),
        events=events,
        warning=warning and TrustWarning(warning),
    )
