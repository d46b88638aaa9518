"""What an import or an export did: one row for each file, counts, and the answer to "is all well".

Made by the importer and the exporter, read by the command line. The rows of a large registry are kept in an
unnamed temporary file, so that memory stays bounded.
"""

from __future__ import annotations

import marshal
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .format.damage import DamageKind, TrustWarning

Json = Any

_BYTES_IN_MEMORY = 1 << 20
_ROWS_TOGETHER = 250
_LENGTH = struct.Struct("<I")


class Outcome(StrEnum):
    """What became of a file."""

    IMPORTED = "imported"
    EXPORTED = "exported"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    DAMAGED = "damaged"
    IGNORED = "ignored"

    __hash__ = str.__hash__  # that of enumerations is written in Python; a count is looked up for every file


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One file.

    Attributes:
        file: its path within the registry's folder; the audit log's begins with ``../``.
        outcome: what became of it.
        reason: why, or what is worth knowing; may be empty.
        job_id: the job, where the file is one's.
        damage: the kind of damage, for a damaged file.
        events: how many events its logs hold.
        warning: why its events are believed less, or not at all; the reason says it in words.
    """

    file: str
    outcome: Outcome
    reason: str = ""
    job_id: str | None = None
    damage: DamageKind | None = None
    events: int = 0
    warning: TrustWarning | None = None

    def as_dict(self) -> dict[str, Json]:
        """JSON-ready, under stable names."""
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
    """Rows and counts. Close it, or let it go, when it has been shown."""

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
        """Notes what became of a file."""
        self.add_values(
            row.file,
            row.outcome,
            row.reason,
            row.job_id,
            row.damage,
            row.events,
            row.warning.value if row.warning else "",
        )

    def add_values(
        self,
        file: str,
        outcome: Outcome,
        reason: str,
        job_id: str | None,
        damage: DamageKind | None,
        events: int,
        warning: str = "",
    ) -> None:
        """The same, from what a row would hold."""
        self.counts[outcome] += 1
        self._rows.append((file, outcome.value, reason, job_id, damage.value if damage else None, events, warning))
        if len(self._rows) >= _ROWS_TOGETHER:
            self._flush()

    def rows(self, wanted: Callable[[Outcome], bool] = lambda outcome: True) -> Iterator[ReportRow]:
        """The files in the order in which they were dealt with, those whose outcome is wanted."""
        self._flush()
        self._spool.seek(0)
        while head := self._spool.read(_LENGTH.size):
            packed = self._spool.read(_LENGTH.unpack(head)[0])
            for file, outcome, reason, job_id, damage, events, warning in marshal.loads(packed):
                if wanted(Outcome(outcome)):
                    kind, about = DamageKind(damage) if damage else None, TrustWarning(warning) if warning else None
                    yield ReportRow(file, Outcome(outcome), reason, job_id, kind, events, about)

    def _flush(self) -> None:
        if self._rows:
            packed = marshal.dumps(self._rows)
            self._spool.seek(0, os.SEEK_END)
            self._spool.write(_LENGTH.pack(len(packed)) + packed)
            self._rows = []

    @property
    def ok(self) -> bool:
        """Whether all went as it was meant to: decides the exit code."""
        return True

    def as_dict(self) -> dict[str, Json]:
        """The summary without the rows, JSON-ready, under stable names."""
        counts = {outcome.value: count for outcome, count in self.counts.items()}
        return {"folder": self.folder, "ok": self.ok, "events": self.events, **counts}

    def close(self) -> None:
        """Gives the temporary file back."""
        self._spool.close()


class ImportReport(Report):
    """What an import did, or with ``dry_run`` would do.

    Attributes:
        folder: the folder of records that was read.
        dry_run: nothing was written.
        allow_damaged: damaged files are no failure.
        counts: how many files there are of each outcome.
        warnings: how many jobs there are of each warning.
        without_subscribers: how many new jobs with events came without the state of any subscriber.
        events: how many events were added.
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

    def add_values(
        self,
        file: str,
        outcome: Outcome,
        reason: str,
        job_id: str | None,
        damage: DamageKind | None,
        events: int,
        warning: str = "",
    ) -> None:
        """Note what became of a file, and count its warning."""
        if warning:
            self.warnings[TrustWarning(warning)] += 1
        super().add_values(file, outcome, reason, job_id, damage, events, warning)

    @property
    def ok(self) -> bool:
        """No file is damaged, or damaged files were allowed."""
        return self.allow_damaged or not self.counts[Outcome.DAMAGED]

    def as_dict(self) -> dict[str, Json]:
        """The summary without the rows, JSON-ready, under stable names."""
        return {**super().as_dict(), "dry_run": self.dry_run}

    def trust(self) -> dict[str, Json]:
        """Return how many jobs came with less than full trust, JSON-ready, under stable names."""
        found: dict[str, Json] = {warning.value: count for warning, count in self.warnings.items()}
        return {**found, "without_subscribers": self.without_subscribers}


class ExportReport(Report):
    """What an export wrote.

    Attributes:
        folder: the folder of records that was written.
        secrets_left_out: how many jobs have a token or password that was not written.
        counts: how many jobs there are of each outcome.
        events: how many event lines the written logs hold.
    """

    outcomes = (Outcome.EXPORTED, Outcome.UNCHANGED, Outcome.SKIPPED)

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.secrets_left_out = 0

    @property
    def ok(self) -> bool:
        """No job was left out because the folder has something newer of it."""
        return not self.counts[Outcome.SKIPPED]

    def as_dict(self) -> dict[str, Json]:
        """The summary without the rows, JSON-ready, under stable names."""
        return {**super().as_dict(), "secrets_left_out": self.secrets_left_out}
