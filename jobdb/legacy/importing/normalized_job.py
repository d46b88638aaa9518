"""A job of the old registry as the values that are stored of it, and their packed form.

Made by the normalization, in this process or in a reader process; what the importer plans, writes and verifies.

All values are plain, so that they go from process to process as they are. `marshal`, which packs them because it is by
far the fastest, refuses named tuples and enums: `StoredValues.pack` and ``reader_protocol.py`` convert, and enums that
cross the pipe are held as their values.
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..database.job_row import record_from_values
from ..database.job_values import (
    UNCLAIMED,
    EventValues,
    JobValues,
    KeyValues,
    LineValues,
    OriginValues,
    SpecValues,
)
from ..format.damage import FileDamage
from ..format.jobdb_state import State
from ..format.log_line import LogEvent
from ..format.record import LegacyRecord

Json = Any

_EVENT_COLUMNS = len(EventValues._fields)
_SPEC = len(JobValues._fields)
_ORIGIN = _SPEC + len(SpecValues._fields)
_KEY = _ORIGIN + len(OriginValues._fields)
_CLAIM = _KEY + len(KeyValues._fields)


class StoredRows(NamedTuple):
    """The values that are stored of a job as plain rows, for writing them: each row is one of the named tuples."""

    job: tuple[Json, ...]
    spec: tuple[Json, ...]
    origin: tuple[Json, ...]
    key: tuple[Json, ...]
    events: list[tuple[Json, ...]]
    lines: list[tuple[Json, ...]]


class StoredValues(NamedTuple):
    """The values that are stored of a job, with names. Its events are by seq, its kept lines by log and number."""

    job: JobValues
    spec: SpecValues
    origin: OriginValues
    key: KeyValues
    event_rows: list[tuple[Json, ...]]
    line_rows: list[tuple[Json, ...]]

    @property
    def events(self) -> list[EventValues]:
        """Return its events with names."""
        return [EventValues._make(row) for row in self.event_rows]

    @property
    def lines(self) -> list[LineValues]:
        """Return its kept lines with names."""
        return [LineValues._make(row) for row in self.line_rows]

    def record(self, token: str | None, password: str | None) -> LegacyRecord:
        """Return the record that was read.

        Args:
            token: in clear.
            password: the broker's, in clear.
        """
        return record_from_values(self.job, self.spec, self.origin.absent, self.origin.record_seq, token, password)

    def contains_nul(self) -> bool:
        """Tell whether a text holds a NUL character, which PostgreSQL cannot store."""
        job = self.job
        return any("\0" in text for text in (self.spec.prompt, job.agent, job.agent_session or "", job.topic_prefix))


def pack_values(
    job: JobValues,
    spec: SpecValues,
    origin: OriginValues,
    key: KeyValues,
    events: Sequence[EventValues | LogEvent],
    lines: Sequence[LineValues],
) -> bytes:
    """Return the values of an unclaimed job in one canonical form.

    Args:
        job, spec, origin, key: its columns.
        events: by seq; of events out of logs the columns alone are packed.
        lines: by log and number.
    """
    values = job + spec + origin + key + UNCLAIMED
    return pack_rows(values, [event[:_EVENT_COLUMNS] for event in events], [tuple(line) for line in lines])


def pack_rows(values: tuple[Json, ...], events: list[tuple[Json, ...]], lines: list[tuple[Json, ...]]) -> bytes:
    """Return rows of the database in the form of `pack_values`, for comparing.

    marshal, in the version without references, writes equal values of equal types as equal bytes. ``==`` would take
    1, 1.0 and true for the same.

    Args:
        values: of `STORED_COLUMNS`.
        events: of the fields of `EventValues`, by seq.
        lines: of the fields of `LineValues`, by log and number.
    """
    return marshal.dumps((values, events, lines), 2)


class NormalizedJob(NamedTuple):
    """A job of the old registry, ready to be stored.

    Attributes:
        bytes_read: how much memory its files took, for keeping what is read at once within bounds.
        packed: its `StoredValues`, packed. Secrets that stood in lines are masked.
        token: in clear; None when the record has none, or an empty one.
        password: the broker's, in clear.
        notes: what is unusual and harmless, a sentence each.
        damage: files beside the record that could not be imported as a whole.
        event_count: how many events it has.
        has_event_log: an event log was read.
        state: what the record's other members cannot say; its attempt only if the events do not say it.
        trust_note: how far its events are trusted, where that is not by a sound token.
        warning: the same as a value of `TrustWarning`, or empty.
    """

    job_id: str
    status: str
    created_ms: int
    bytes_read: int
    packed: bytes
    token: str | None
    password: str | None
    notes: list[str]
    damage: list[FileDamage]
    event_count: int
    has_event_log: bool
    state: State | None
    trust_note: str
    warning: str

    def __repr__(self) -> str:
        return f"<NormalizedJob {self.job_id}>"

    def unpack_rows(self) -> StoredRows:
        """Return the values that are stored of it, as plain rows: for each job of a large import."""
        values, events, lines = marshal.loads(self.packed)
        return StoredRows._make(
            (values[:_SPEC], values[_SPEC:_ORIGIN], values[_ORIGIN:_KEY], values[_KEY:_CLAIM], events, lines)
        )

    def unpack_values(self) -> StoredValues:
        """Return the values that are stored of it, with names: for the jobs that need a closer look."""
        values, events, lines = marshal.loads(self.packed)
        return StoredValues(
            JobValues._make(values[:_SPEC]),
            SpecValues._make(values[_SPEC:_ORIGIN]),
            OriginValues._make(values[_ORIGIN:_KEY]),
            KeyValues._make(values[_KEY:_CLAIM]),
            events,
            lines,
        )


class DeferredJob(NamedTuple):
    """A pending job whose turn is at the end: nothing but its record was read, and it will be read again."""

    job_id: str
    created_ms: int
