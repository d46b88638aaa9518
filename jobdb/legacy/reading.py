"""Reads many source jobs: here, or for a large registry in a second process, while this one writes.

Called by the importer. The reading process opens nothing but the registry's files, gets their names over a pipe and
answers over another; it holds no lock and no database, and ends when its input does.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ..errors import Unusable
from .layout import Layout
from .packing import Answer, pack, unpack
from .source import SourceJob, SourceReader

WORTH_A_PROCESS = 3000
"""From so many records on, the time that a second process takes to start is won back."""

_NAMES = 100
_NAME_BYTES = 16 << 10
_REQUESTS_AHEAD = 2
"""Two requests fit into a pipe that nobody reads, so that neither side ever waits for the other at once."""

_ANSWER_BYTES = 4 << 20
_LENGTH = struct.Struct("<I")
_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from jobdb.legacy.reading import serve; serve()"


class Reader:
    """Reads in this process."""

    def __init__(self, layout: Layout) -> None:
        self._source = SourceReader(layout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to give back."""

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Answer]]:
        """The job of each record's file, in the order of the names; see `SourceReader.read`."""
        for name in names:
            yield name, self._source.read(name)


class ReadingProcess(Reader):
    """Reads in a second process, ahead of what is asked for."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        arguments = [json.dumps(sys.path), str(layout.jobs), str(layout.audit)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Answer]]:
        """The job of each record's file, in the order of the names.

        Raises:
            Unusable: the process ended before its time.
        """
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None and pipe_out is not None
        requests = _requests(names)
        waiting: deque[None] = deque()
        try:
            for request in requests:
                _write_frame(pipe_in, request)
                waiting.append(None)
                if len(waiting) >= _REQUESTS_AHEAD:
                    yield from _answers(pipe_out)
                    waiting.popleft()
            for _ in waiting:
                yield from _answers(pipe_out)
        except (BrokenPipeError, EOFError) as error:
            raise Unusable(
                "the process that reads the old registry ended before its time; nothing was written. Is memory "
                "short? Try again"
            ) from error


def reader_for(layout: Layout, records: int) -> Reader:
    """The way to read a registry of so many records."""
    if records < WORTH_A_PROCESS or (os.cpu_count() or 1) < 2 or not sys.executable:
        return Reader(layout)
    return ReadingProcess(layout)


def serve() -> None:
    """The reading process: answers requests until there are no more."""
    import signal

    # An interrupt from the terminal is for the importing process, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source = SourceReader(Layout(Path(sys.argv[2]), Path(sys.argv[3])))
    pipe_in, pipe_out = sys.stdin.buffer, sys.stdout.buffer
    try:
        while True:
            try:
                names = [os.fsdecode(name) for name in _read_frame(pipe_in).split(b"\0")]
            except EOFError:
                return
            _serve_request(source, names, pipe_out)
    except BrokenPipeError:
        os._exit(0)


def _serve_request(source: SourceReader, names: list[str], pipe_out: IO[bytes]) -> None:
    answers: list[tuple[str, Answer]] = []
    size = 0
    for name in names:
        answer = source.read(name)
        answers.append((name, answer))
        size += answer.bytes_read if isinstance(answer, SourceJob) else 0
        if size > _ANSWER_BYTES:
            _write_frame(pipe_out, pack(answers))
            answers, size = [], 0
    _write_frame(pipe_out, pack(answers))
    _write_frame(pipe_out, b"")


def _requests(names: Iterable[str]) -> Iterator[bytes]:
    """Names in packs that are small enough for the pipe; a NUL is in no file name."""
    request: list[bytes] = []
    size = 0
    for name in names:
        raw = os.fsencode(name)
        request.append(raw)
        size += len(raw) + 1
        if len(request) >= _NAMES or size >= _NAME_BYTES:
            yield b"\0".join(request)
            request, size = [], 0
    if request:
        yield b"\0".join(request)


def _answers(pipe: IO[bytes]) -> Iterator[tuple[str, Answer]]:
    while packed := _read_frame(pipe):
        yield from unpack(packed)


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
