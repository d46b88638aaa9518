"""Reads many source jobs: here, or for a large registry in further processes, while this one writes.

Called by the importer. A reading process opens nothing but the registry's files, gets their names over a pipe and
answers over another; it holds no lock and no database, and ends when its input does.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ...crypto.secret_input import auth_required_reason
from ...errors import Unusable
from ...model import JobStatus
from ...system.isolated_python import isolated_command
from ...system.subprocess_env import without_secrets
from ..folder.layout import Layout, count_records
from ..format.record import LegacyRecord
from .gc_threshold import raised_gc_threshold
from .normalization import DeferredJob, NormalizedJob, normalize_job
from .read_results import ReadResult, pack, unpack
from .source import SourceJob, SourceReader

MIN_RECORDS_FOR_PROCESS = 3000
"""From so many records on, the time that a second process takes to start is won back."""

MIN_RECORDS_FOR_TWO_PROCESSES = 10_000
"""From so many on, a third process keeps two processors busy when the import or one reader has to wait."""

_NAMES = 100
_NAME_CHARS = 2 << 10
_REQUEST_BYTES_AHEAD = 32 << 10
"""So much fits into any pipe that nobody reads: asking never waits for the other side."""

_ANSWER_BYTES = 256 << 10
_ANSWER_BYTES_AHEAD = 1 << 20
"""How much a process may have read and not yet have been rid of; Linux allows no more unless it is told to."""

_WHOLE, _PUT_OFF = "whole", "put off"
_PENDING = JobStatus.PENDING.value
_LENGTH = struct.Struct("<I")
_PROGRAM = "from jobdb.legacy.importing.readers import serve; serve()"


class Reader:
    """Reads in this process."""

    def __init__(self, layout: Layout) -> None:
        self._auth_required_by = auth_required_reason(None)
        self._source = SourceReader(layout, self._auth_required_by)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what it has open."""
        self._source.close()

    def read(self, names: Iterable[str], *, defer_pending: bool = False) -> Iterator[tuple[str, ReadResult]]:
        """The job of each record's file, in the order of the names; None for a file that has gone.

        Args:
            names: the files.
            defer_pending: answer pending jobs by `DeferredJob`.
        """
        for name in names:
            yield name, read_job(self._source, name, defer_pending=defer_pending)


def read_job(reader: SourceReader, name: str, *, defer_pending: bool) -> ReadResult:
    """The job of a record's file, ready to be stored; what is wrong with it; None if the file has gone."""
    source = reader.read(name, record_only_status=_PENDING if defer_pending else None)
    if isinstance(source, SourceJob):
        return normalize_job(source)
    return DeferredJob(source.job_id, source.created_ms) if isinstance(source, LegacyRecord) else source


class ReaderPool(Reader):
    """Reads in processes of its own, ahead of what is asked for.

    They open nothing but the registry's files, and are started, not forked: nothing of this process is in them.
    """

    def __init__(self, layout: Layout, processes: int) -> None:
        super().__init__(layout)
        self._processes: list[_ReaderProcess] = []
        try:
            for _ in range(processes):
                self._processes.append(_ReaderProcess(layout, self._auth_required_by))
        except BaseException:
            self._end()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes, whatever they are doing."""
        self._source.close()
        self._end()

    def read(self, names: Iterable[str], *, defer_pending: bool = False) -> Iterator[tuple[str, ReadResult]]:
        """The job of each record's file, in the order of the names; the arguments are as above.

        Raises:
            Unusable: a process ended before its time.
        """
        awaited: deque[_ReaderProcess] = deque()
        requests = _requests(names, defer_pending)
        turns = cycle(self._processes)
        process: _ReaderProcess | None = next(turns)
        try:
            while process or awaited:
                while process and process.accepts_request:
                    request = next(requests, None)
                    if request is None:
                        process = None
                    else:
                        process.send_request(request)
                        awaited.append(process)
                        process = next(turns)
                if awaited:
                    yield from awaited.popleft().results()
        except (BrokenPipeError, EOFError) as error:
            raise Unusable(
                "a process that reads the old registry ended before its time; nothing was written. Is memory short? "
                "Try again"
            ) from error

    def _end(self) -> None:
        for process in self._processes:
            process.end()


class _ReaderProcess:
    """One reading process: what it was asked, and what it has answered."""

    def __init__(self, layout: Layout, auth_required_by: str | None) -> None:
        # It reads what agents have written and needs no secret for that.
        arguments = (os.path.abspath(layout.jobs), os.path.abspath(layout.audit), auth_required_by or "")
        self.process = subprocess.Popen(
            isolated_command(_PROGRAM, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=without_secrets(os.environ),
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._pipe_in = self.process.stdin
        self._pipe_out = self.process.stdout
        _enlarge_pipe(self._pipe_out)
        self._asked: deque[int] = deque()

    @property
    def accepts_request(self) -> bool:
        """Whether another request fits into the pipe."""
        return sum(self._asked) < _REQUEST_BYTES_AHEAD

    def send_request(self, request: bytes) -> None:
        """Hands a request over; never waits."""
        _write_frame(self._pipe_in, request)
        self._asked.append(len(request))

    def results(self) -> Iterator[tuple[str, ReadResult]]:
        """To the oldest request that was not answered yet.

        Raises:
            EOFError: the process has ended.
        """
        while packed := _read_frame(self._pipe_out):
            yield from unpack(packed)
        self._asked.popleft()

    def end(self) -> None:
        """Kills it, whatever it is doing."""
        self.process.kill()
        for stream in (self._pipe_in, self._pipe_out):
            with suppress(BrokenPipeError):
                stream.close()
        self.process.wait()


def _enlarge_pipe(pipe: IO[bytes]) -> None:
    """Lets the process read ahead while nobody takes its answers: as far as the system allows, where it does."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _ANSWER_BYTES_AHEAD)


def open_reader(layout: Layout) -> Reader:
    """The way to read a registry of its size. Processes start while the caller gets ready."""
    records = count_records(layout, limit=MIN_RECORDS_FOR_TWO_PROCESSES)
    if records < MIN_RECORDS_FOR_PROCESS or (os.cpu_count() or 1) < 2 or not sys.executable:
        return Reader(layout)
    return ReaderPool(layout, 1 if records < MIN_RECORDS_FOR_TWO_PROCESSES else 2)


def serve() -> None:
    """The reading process: answers requests until there are no more."""
    import signal

    # An interrupt from the terminal is for the importing process, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The environment was looked at by the importing process: this one is not handed all of it.
    source = SourceReader(Layout(Path(sys.argv[1]), Path(sys.argv[2])), sys.argv[3] or None)
    pipe_in, pipe_out = sys.stdin.buffer, sys.stdout.buffer
    try:
        with raised_gc_threshold():
            _serve(source, pipe_in, pipe_out)
    except BrokenPipeError:
        os._exit(0)


def _serve(source: SourceReader, pipe_in: IO[bytes], pipe_out: IO[bytes]) -> None:
    while True:
        try:
            mode, *names = os.fsdecode(_read_frame(pipe_in)).split("\0")
        except EOFError:
            return
        _serve_request(source, names, mode == _PUT_OFF, pipe_out)


def _serve_request(source: SourceReader, names: list[str], defer_pending: bool, pipe_out: IO[bytes]) -> None:
    results: list[tuple[str, ReadResult]] = []
    size = 0
    for name in names:
        result = read_job(source, name, defer_pending=defer_pending)
        results.append((name, result))
        size += result.bytes_read if isinstance(result, NormalizedJob) else 0
        if size > _ANSWER_BYTES:
            _write_frame(pipe_out, pack(results))
            results, size = [], 0
    _write_frame(pipe_out, pack(results))
    _write_frame(pipe_out, b"")


def _requests(names: Iterable[str], defer_pending: bool) -> Iterator[bytes]:
    """How to read, and names, in packs that are small enough for the pipe; a NUL is in no file name."""
    mode = _PUT_OFF if defer_pending else _WHOLE
    request = [mode]
    chars = 0
    for name in names:
        request.append(name)
        chars += len(name)
        if len(request) > _NAMES or chars >= _NAME_CHARS:
            yield os.fsencode("\0".join(request))
            request, chars = [mode], 0
    if len(request) > 1:
        yield os.fsencode("\0".join(request))


def _write_frame(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(_LENGTH.pack(len(content)))
    pipe.write(content)
    pipe.flush()


def _read_frame(pipe: IO[bytes]) -> bytes:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return content
