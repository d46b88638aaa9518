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
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
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
_NAME_BYTES = 8 << 10
_REQUEST_BYTES_AHEAD = 32 << 10
"""So much fits into any pipe that nobody reads: asking never waits for the other side."""

_ANSWER_BYTES = 1 << 20
_ANSWER_BYTES_AHEAD = 16 << 20
"""How much may have been read and not yet been taken."""

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
        assert self._process.stdout is not None
        self._answers = _Answers(self._process.stdout)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process, whatever it is doing."""
        self._process.kill()
        self._answers.stop()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Answer]]:
        """The job of each record's file, in the order of the names.

        Raises:
            Unusable: the process ended before its time.
        """
        pipe_in = self._process.stdin
        assert pipe_in is not None
        asked: deque[int] = deque()
        requests = _requests(names)
        more = True
        try:
            while more or asked:
                while more and sum(asked) < _REQUEST_BYTES_AHEAD:
                    request = next(requests, None)
                    more = request is not None
                    if request is not None:
                        _write_frame(pipe_in, request)
                        asked.append(len(request))
                if asked:
                    while packed := self._answers.take():
                        yield from unpack(packed)
                    asked.popleft()
        except (BrokenPipeError, EOFError) as error:
            raise Unusable(
                "the process that reads the old registry ended before its time; nothing was written. Is memory "
                "short? Try again"
            ) from error


class _Answers:
    """Takes answers from the pipe as they come, so that the process can read on while the database is written."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._taken: deque[bytes | None] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="jobdb-legacy-reading", daemon=True)
        self._thread.start()

    def take(self) -> bytes:
        """The next frame; empty at the end of a request's answers.

        Raises:
            EOFError: the process has ended.
        """
        with self._changed:
            while not self._taken:
                self._changed.wait()
            frame = self._taken[0]
            if frame is None:
                raise EOFError
            self._taken.popleft()
            self._bytes -= len(frame)
            self._changed.notify_all()
            return frame

    def stop(self) -> None:
        """Ends the thread; the process must have ended."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        frame: bytes | None = b""
        while frame is not None:
            try:
                frame = _read_frame(self._pipe)
            except EOFError:
                frame = None
            with self._changed:
                while self._bytes > _ANSWER_BYTES_AHEAD and not self._stopped:
                    self._changed.wait()
                self._taken.append(frame)
                self._bytes += len(frame or b"")
                self._changed.notify_all()


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
