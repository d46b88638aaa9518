"""Answers as bytes and back: how a reading process hands them to the importing one.

Called by the reader on both sides. `marshal` because it is by far the fastest for plain values;
both ends are the same Python, and nobody else sees the bytes.
"""

from __future__ import annotations

import marshal
from typing import Any

from ..format.damage import Damaged, DamageKind
from .normalization import DeferredJob, NormalizedJob

Json = Any
ReadResult = NormalizedJob | DeferredJob | Damaged | None


def pack(results: list[tuple[str, ReadResult]]) -> bytes:
    """Answers, each with the name of its file, as bytes."""
    return marshal.dumps([(name, _packed(result)) for name, result in results])


def unpack(packed: bytes) -> list[tuple[str, ReadResult]]:
    """What `pack` was given."""
    return [(name, _unpacked(values)) for name, values in marshal.loads(packed)]


def _packed(result: ReadResult) -> tuple[Json, ...] | None:
    if isinstance(result, NormalizedJob):
        return tuple(result)
    if isinstance(result, DeferredJob):
        return (*result, None)
    return None if result is None else (result.kind.value, result.reason)


def _unpacked(values: Json) -> ReadResult:
    if values is None:
        return None
    if len(values) == 2:
        return Damaged(DamageKind(values[0]), values[1])
    if len(values) == 3:
        return DeferredJob(values[0], values[1])
    return NormalizedJob._make(values)
