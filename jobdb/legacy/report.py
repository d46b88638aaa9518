"""What an import did or would do: one row for each file, counts, and the answer to "is all well".

Made by the importer, read by the command line. The rows of a large registry are kept in an unnamed temporary file,
so that memory stays bounded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .damage import Damage

Json = Any

_ROWS_IN_MEMORY = 1 << 20


class Outcome(StrEnum):
    """What became of a file."""

    IMPORTED = "imported"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    DAMAGED = "damaged"
    IGNORED = "ignored"


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
    """

    file: str
    outcome: Outcome
    reason: str = ""
    job_id: str | None = None
    damage: Damage | None = None
    events: int = 0

    def as_dict(self) -> dict[str, Json]:
        """JSON-ready, under stable names."""
        return {
            "file": self.file,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "job_id": self.job_id,
            "damage": self.damage.value if self.damage else None,
            "events": self.events,
        }


@dataclass(slots=True)
class ImportReport:
    """What an import did, or with ``dry_run`` would do.

    Attributes:
        source: the folder of records that was read.
        dry_run: nothing was written.
        allow_damaged: damaged files are no failure.
        counts: how many files there are of each outcome.
        events: how many events were added.
    """

    source: str
    dry_run: bool
    allow_damaged: bool
    counts: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    events: int = 0
    _spool: Any = field(
        default_factory=lambda: tempfile.SpooledTemporaryFile(  # noqa: SIM115 - lives as long as the report
            _ROWS_IN_MEMORY, "w+", encoding="utf-8"
        ),
        repr=False,
    )

    @property
    def ok(self) -> bool:
        """No file is damaged, or damaged files were allowed."""
        return self.allow_damaged or not self.counts[Outcome.DAMAGED]

    def add(self, row: ReportRow) -> None:
        """Notes what became of a file."""
        self.counts[row.outcome] += 1
        values = (row.file, row.outcome, row.reason, row.job_id, row.damage, row.events)
        self._spool.write(json.dumps(values) + "\n")

    def rows(self, wanted: Callable[[Outcome], bool] = lambda outcome: True) -> Iterator[ReportRow]:
        """The files in the order in which they were read, those whose outcome is wanted."""
        self._spool.seek(0)
        for line in self._spool:
            file, outcome, reason, job_id, damage, events = json.loads(line)
            if wanted(Outcome(outcome)):
                yield ReportRow(
                    file, Outcome(outcome), reason, job_id, Damage(damage) if damage else None, events
                )

    def as_dict(self) -> dict[str, Json]:
        """The summary without the rows, JSON-ready, under stable names."""
        return {
            "source": self.source,
            "dry_run": self.dry_run,
            "ok": self.ok,
            "events": self.events,
            **{outcome.value: count for outcome, count in self.counts.items()},
        }
