"""A job of the old registry as the values to store, and their packed form.

Created by the normalization, in this process or in a reader process; planned, written and verified by the importer.

All values are plain, so that they can pass between processes. They are packed with `marshal`, which is by far the
fastest but refuses named tuples and enums: `pack_values` and ``reader_protocol.py`` convert them, and enums that cross
the pipe are stored as their values.
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
    """The values to store for a job as plain rows: each row has the fields of one of the named tuples."""

    job: tuple[Json, ...]
    spec: tuple[Json, ...]
    origin: tuple[Json, ...]
    key: tuple[Json, ...]
    events: list[tuple[Json, ...]]
    lines: list[tuple[Json, ...]]


class StoredValues(NamedTuple):
    """The values to store for a job as named tuples; events are in order of seq, kept lines of log and number."""

    job: JobValues
    spec: SpecValues
    origin: OriginValues
    key: KeyValues
    event_rows: list[tuple[Json, ...]]
    line_rows: list[tuple[Json, ...]]

    @property
    def events(self) -> list[EventValues]:
        """Its events as named tuples."""
        return [EventValues._make(row) for row in self.event_rows]

    @property
    def lines(self) -> list[LineValues]:
        """Its kept lines as named tuples."""
        return [LineValues._make(row) for row in self.line_rows]

    def record(self, token: str | None, password: str | None) -> LegacyRecord:
        """Return the record that was read.

        Args:
            token: the token, in clear text.
            password: the broker's password, in clear text.
        """
        return record_from_values(self.job, self.spec, self.origin.absent, self.origin.record_seq, token, password)

    def contains_nul(self) -> bool:
        """Return whether a string contains a NUL character, which PostgreSQL cannot store."""
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
    """Return the values of an unclaimed job in a canonical form.

    Args:
        job, spec, origin, key: its columns.
        events: in order of seq; for events from logs only the columns are packed.
        lines: in order of log and number.
    """
    values = job + spec + origin + key + UNCLAIMED
    return pack_rows(values, [event[:_EVENT_COLUMNS] for event in events], [tuple(line) for line in lines])


def pack_rows(values: tuple[Json, ...], events: list[tuple[Json, ...]], lines: list[tuple[Json, ...]]) -> bytes:
    """Return rows of the database in the form of `pack_values`, for comparison.

    marshal, in the version without references, writes equal values of equal types as equal bytes. ``==`` would treat
    1, 1.0 and True as equal.

    Args:
        values: the values of `STORED_COLUMNS`.
        events: the fields of `EventValues`, in order of seq.
        lines: the fields of `LineValues`, in order of log and number.
    """
    return marshal.dumps((values, events, lines), 2)


class NormalizedJob(NamedTuple):
    """A job of the old registry, ready to be stored.

    Attributes:
        bytes_read: the memory that its files took, for limiting how much is read at once.
        packed: its `StoredValues`, packed. Secrets in lines are masked.
        token: in clear text; None if the record has none, or an empty one.
        password: the broker's password, in clear text.
        notes: unusual but harmless observations, a sentence each.
        damage: the files other than the record that could not be imported completely.
        event_count: the number of its events.
        has_event_log: True if an event log was read.
        state: the state that the record's other fields cannot express; its attempt only if the events do not show it.
        trust_note: how far its events are trusted, if it has no sufficient token.
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
        """Return the values to store as plain rows, which is fast enough for each job of a large import."""
        values, events, lines = marshal.loads(self.packed)
        return StoredRows._make(
            (values[:_SPEC], values[_SPEC:_ORIGIN], values[_ORIGIN:_KEY], values[_KEY:_CLAIM], events, lines)
        )

    def unpack_values(self) -> StoredValues:
        """Return the values to store as named tuples, for the jobs that need closer inspection."""
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
    """A pending job that is deferred to the end: only its record was read, and it will be read again."""

    job_id: str
    created_ms: int
