"""Answers as bytes and back: how a reading process hands them to the importing one.

Called by the reader on both sides. `marshal` because it is by far the fastest for plain values;
both ends are the same Python, and nobody else sees the bytes.
"""

from __future__ import annotations

import marshal
from typing import Any

from .damage import Damage, Damaged
from .ready import PutOff, ReadyJob

Json = Any
Answer = ReadyJob | PutOff | Damaged | None


def pack(answers: list[tuple[str, Answer]]) -> bytes:
    """Answers, each with the name of its file, as bytes."""
    return marshal.dumps([(name, _packed(answer)) for name, answer in answers])


def unpack(packed: bytes) -> list[tuple[str, Answer]]:
    """What `pack` was given."""
    return [(name, _unpacked(values)) for name, values in marshal.loads(packed)]


def _packed(answer: Answer) -> tuple[Json, ...] | None:
    if isinstance(answer, ReadyJob):
        return tuple(answer)
    if isinstance(answer, PutOff):
        return (*answer, None)
    return None if answer is None else (answer.kind.value, answer.reason)


def _unpacked(values: Json) -> Answer:
    if values is None:
        return None
    if len(values) == 2:
        return Damaged(Damage(values[0]), values[1])
    if len(values) == 3:
        return PutOff(values[0], values[1])
    return ReadyJob._make(values)
