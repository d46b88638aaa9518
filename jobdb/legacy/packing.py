"""A source job as plain values and back: how the reading process hands jobs to the importing one.

Called by the reader on both sides. `marshal` because it is by far the fastest for plain values; both ends are the
same Python, and nobody else sees the bytes.
"""

from __future__ import annotations

import marshal
from operator import attrgetter
from typing import Any

from .damage import Damage, Damaged
from .layout import EntryKind
from .log_lines import LogEvent
from .logs import JobLogs, KeptLine
from .records import LegacyRecord
from .source import NO_LOGS, SourceJob

Json = Any
Answer = SourceJob | Damaged | None

_event_fields = attrgetter("seq", "event", "attempt", "recorded_ms", "digest", "text", "detail")
_KINDS = {kind.value: kind for kind in EntryKind}


def pack(answers: list[tuple[str, Answer]]) -> bytes:
    """Answers, each with the name of its file, as bytes."""
    return marshal.dumps([(name, _packed(answer)) for name, answer in answers])


def unpack(packed: bytes) -> list[tuple[str, Answer]]:
    """What `pack` was given."""
    return [(name, _unpacked(values)) for name, values in marshal.loads(packed)]


def _packed(answer: Answer) -> tuple[Json, ...] | None:
    if answer is None:
        return None
    if isinstance(answer, Damaged):
        return _damage(answer)
    logs = answer.logs
    return (
        answer.record.fields(),
        answer.bytes_read,
        None if logs is NO_LOGS else _packed_logs(logs),
        {kind.value: digest for kind, digest in answer.digests.items()},
        [(name, _damage(damaged)) for name, damaged in answer.damage],
    )


def _packed_logs(logs: JobLogs) -> tuple[Json, ...]:
    return (
        [_event_fields(event) for event in logs.events],
        [(line.log.value, line.number, line.raw) for line in logs.kept],
        {kind.value: form for kind, form in logs.forms.items()},
        logs.notes,
        {kind.value: _damage(damaged) for kind, damaged in logs.damage.items()},
        logs.highest_seq,
    )


def _unpacked(values: Json) -> Answer:
    if values is None:
        return None
    if len(values) == 2:
        return _damaged(values)
    record, bytes_read, logs, digests, damage = values
    return SourceJob(
        LegacyRecord(*record),
        bytes_read,
        NO_LOGS if logs is None else _unpacked_logs(*logs),
        {_KINDS[kind]: digest for kind, digest in digests.items()},
        [(name, _damaged(damaged)) for name, damaged in damage],
    )


def _unpacked_logs(events: Json, kept: Json, forms: Json, notes: list[str], damage: Json, highest_seq: int) -> JobLogs:
    return JobLogs(
        [LogEvent(*event) for event in events],
        [KeptLine(_KINDS[log], number, raw) for log, number, raw in kept],
        {_KINDS[kind]: form for kind, form in forms.items()},
        notes,
        {_KINDS[kind]: _damaged(damaged) for kind, damaged in damage.items()},
        highest_seq,
    )


def _damage(damaged: Damaged) -> tuple[str, str]:
    return damaged.kind.value, damaged.reason


def _damaged(values: tuple[str, str]) -> Damaged:
    return Damaged(Damage(values[0]), values[1])
