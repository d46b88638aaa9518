"""The messages between the importing process and its reader processes: requests and results as bytes, and back.

Called by ``readers.py`` (the importing side) and ``reader_process.py``. A request names record files; results follow in
the order of the names, each packed with `marshal`, which is by far the fastest for plain values: both ends are the same
Python, and no other process sees the bytes. It refuses named tuples and enums, so they are converted here.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..format.damage import Damaged, DamageKind, FileDamage
from .normalized_job import DeferredJob, NormalizedJob

Json = Any
ReadResult = NormalizedJob | DeferredJob | Damaged | None
"""A job, the damage of a file, or None for a file that no longer exists."""

_MAX_NAMES = 100
_MAX_NAME_CHARS = 2 << 10
_WHOLE, _DEFER_PENDING = "whole", "defer pending"
_JOB, _DEFERRED, _DAMAGED, _GONE = "job", "deferred", "damaged", "gone"


class ReadRequest(NamedTuple):
    """A request to read record files.

    Attributes:
        names: the files.
        defer_pending: True to return a `DeferredJob` for each pending job.
    """

    names: list[str]
    defer_pending: bool


def encode_requests(names: Iterable[str], *, defer_pending: bool) -> Iterator[bytes]:
    """Yield requests for all names, each small enough for the pipe; file names are separated by NUL."""
    mode = _DEFER_PENDING if defer_pending else _WHOLE
    request = [mode]
    chars = 0
    for name in names:
        request.append(name)
        chars += len(name)
        if len(request) > _MAX_NAMES or chars >= _MAX_NAME_CHARS:
            yield os.fsencode("\0".join(request))
            request, chars = [mode], 0
    if len(request) > 1:
        yield os.fsencode("\0".join(request))


def decode_request(request: bytes) -> ReadRequest:
    """Parse a request that `encode_requests` created."""
    mode, *names = os.fsdecode(request).split("\0")
    return ReadRequest(names, mode == _DEFER_PENDING)


def encode_results(results: Iterable[tuple[str, ReadResult]]) -> bytes:
    """Encode results, each with the name of its file."""
    return marshal.dumps([(name, *_to_plain(result)) for name, result in results])


def decode_results(packed: bytes) -> list[tuple[str, ReadResult]]:
    """Decode the results that `encode_results` encoded."""
    return [(name, _from_plain(kind, values)) for name, kind, values in marshal.loads(packed)]


def _to_plain(result: ReadResult) -> tuple[str, tuple[Json, ...]]:
    if isinstance(result, NormalizedJob):
        if result.damage:
            damage: Json = [(path, damaged.kind.value, damaged.reason) for path, damaged in result.damage]
            result = result._replace(damage=damage)
        return _JOB, tuple(result)
    if isinstance(result, DeferredJob):
        return _DEFERRED, tuple(result)
    return (_GONE, ()) if result is None else (_DAMAGED, (result.kind.value, result.reason))


def _from_plain(kind: str, values: tuple[Json, ...]) -> ReadResult:
    if kind == _JOB:
        job = NormalizedJob._make(values)
        if job.damage:
            plain: Json = job.damage
            job = job._replace(damage=[FileDamage(path, _damaged(kind, reason)) for path, kind, reason in plain])
        return job
    if kind == _DEFERRED:
        return DeferredJob._make(values)
    return _damaged(*values) if kind == _DAMAGED else None


def _damaged(kind: str, reason: str) -> Damaged:
    return Damaged(DamageKind(kind), reason)
