"""The reader process: reads jobs of an old registry for an importing process, which writes them concurrently.

Started by ``readers.py`` as a separate program (`serve`); the importing process also uses `read_job` to read by itself.
Opens only the registry's files, receives their names over a pipe and answers over another; it has no lock and no
database, and ends when its input does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from ...model import JobStatus
from ..folder.layout import Layout
from ..format.record import LegacyRecord
from ..frames import read_frame, write_frame
from .gc_threshold import raised_gc_threshold
from .normalization import normalize_job
from .normalized_job import DeferredJob, NormalizedJob
from .reader_protocol import ReadRequest, ReadResult, decode_request, encode_results
from .source import SourceJob, SourceReader

_ANSWER_BYTES = 256 << 10
"""The size of the files whose results are sent in one frame."""

_PENDING = JobStatus.PENDING.value


def read_job(reader: SourceReader, name: str, *, defer_pending: bool) -> ReadResult:
    """Return the job of a record's file, ready to be stored; or its damage; or None if the file no longer exists.

    Args:
        reader: the registry's reader.
        name: the file.
        defer_pending: True to return a `DeferredJob` for a pending job.
    """
    source = reader.read(name, record_only_status=_PENDING if defer_pending else None)
    if isinstance(source, SourceJob):
        return normalize_job(source)
    return DeferredJob(source.job_id, source.created_ms) if isinstance(source, LegacyRecord) else source


def serve() -> None:
    """Answer requests until there are no more, as the main program of a reader process.

    The process's arguments are the folder of records, the folder of audit logs, and the reason why every job must have
    a token here, or nothing.
    """
    import signal

    # An interrupt from the terminal is for the importing process, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The importing process has read the environment: this one receives only a part of it.
    layout, auth_required_by = Layout(Path(sys.argv[1]), Path(sys.argv[2])), sys.argv[3] or None
    pipe_in, pipe_out = sys.stdin.buffer, sys.stdout.buffer
    try:
        with raised_gc_threshold(), SourceReader(layout, auth_required_by) as source:
            while True:
                try:
                    request = decode_request(read_frame(pipe_in))
                except EOFError:
                    return
                _answer(source, request, pipe_out)
    except BrokenPipeError:
        os._exit(0)


def _answer(source: SourceReader, request: ReadRequest, pipe_out: IO[bytes]) -> None:
    """Answer a request in frames of bounded size; an empty frame ends the answer."""
    results: list[tuple[str, ReadResult]] = []
    size = 0
    for name in request.names:
        result = read_job(source, name, defer_pending=request.defer_pending)
        results.append((name, result))
        size += result.bytes_read if isinstance(result, NormalizedJob) else 0
        if size > _ANSWER_BYTES:
            _send(pipe_out, encode_results(results))
            results, size = [], 0
    _send(pipe_out, encode_results(results))
    _send(pipe_out, b"")


def _send(pipe: IO[bytes], content: bytes) -> None:
    write_frame(pipe, content)
    pipe.flush()
