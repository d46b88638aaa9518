"""The readers of source jobs: in this process or, for a large registry, in reader processes while this one writes.

Called by the importer. `open_reader` chooses; both use the same code to read the files, in the order of the names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import cycle
from types import TracebackType
from typing import IO, Self

from ...crypto.secret_input import auth_required_reason
from ...errors import Unusable
from ...system.isolated_python import isolated_command
from ...system.subprocess_env import without_secrets
from ..folder.layout import Layout, count_records
from ..frames import read_frame, write_frame
from .reader_process import read_job
from .reader_protocol import ReadResult, decode_results, encode_requests
from .source import SourceReader

MIN_RECORDS_FOR_PROCESS = 3000
"""The number of records from which a second process saves more time than it takes to start."""

MIN_RECORDS_FOR_TWO_PROCESSES = 10_000
"""The number of records from which a third process keeps two processors busy while another process waits."""

_REQUEST_BYTES_AHEAD = 32 << 10
"""The number of bytes that fit into any unread pipe, so that sending a request never blocks."""

_RESULT_BYTES_AHEAD = 1 << 20
"""The number of bytes that a process may read ahead; Linux allows no more without privileges."""

_PROGRAM = "from jobdb.legacy.importing.reader_process import serve; serve()"


class Reader:
    """A reader in this process.

    Args:
        layout: the registry's folders.
    """

    def __init__(self, layout: Layout) -> None:
        self._auth_required_by = auth_required_reason(None)
        self._source = SourceReader(layout, self._auth_required_by)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the open folder."""
        self._source.close()

    def read(self, names: Iterable[str], *, defer_pending: bool = False) -> Iterator[tuple[str, ReadResult]]:
        """Yield the job of each record's file, in the order of the names; None for a file that no longer exists.

        Args:
            names: the files.
            defer_pending: True to return a `DeferredJob` for each pending job.
        """
        for name in names:
            yield name, read_job(self._source, name, defer_pending=defer_pending)


class ReaderPool(Reader):
    """A reader that uses separate processes, which read ahead.

    They open only the registry's files, and are spawned, not forked, so that they inherit no state of this process.

    Args:
        layout: the registry's folders.
        processes: the number of processes.
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
        """Kill the processes."""
        self._source.close()
        self._end()

    def read(self, names: Iterable[str], *, defer_pending: bool = False) -> Iterator[tuple[str, ReadResult]]:
        """Yield the job of each record's file, in the order of the names; the arguments are those of `Reader.read`.

        Raises:
            Unusable: a process ended unexpectedly.
        """
        awaited: deque[_ReaderProcess] = deque()
        requests = encode_requests(names, defer_pending=defer_pending)
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
                "a process that reads the old registry ended unexpectedly; nothing was written",
                advice="free some memory if it is short, and import again",
            ) from error

    def _end(self) -> None:
        for process in self._processes:
            process.end()


class _ReaderProcess:
    """A reader process and its unanswered requests."""

    def __init__(self, layout: Layout, auth_required_by: str | None) -> None:
        # It reads files that agents have written and needs no secret for that.
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
        self._request_sizes: deque[int] = deque()

    @property
    def accepts_request(self) -> bool:
        """True if another request fits into the pipe."""
        return sum(self._request_sizes) < _REQUEST_BYTES_AHEAD

    def send_request(self, request: bytes) -> None:
        """Send a request without blocking."""
        write_frame(self._pipe_in, request)
        self._pipe_in.flush()
        self._request_sizes.append(len(request))

    def results(self) -> Iterator[tuple[str, ReadResult]]:
        """Yield the results of the oldest unanswered request.

        Raises:
            EOFError: the process has ended.
        """
        while packed := read_frame(self._pipe_out):
            yield from decode_results(packed)
        self._request_sizes.popleft()

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        for stream in (self._pipe_in, self._pipe_out):
            with suppress(BrokenPipeError):
                stream.close()
        self.process.wait()


def _enlarge_pipe(pipe: IO[bytes]) -> None:
    """Let the process read ahead while its results are not read, as far as the system allows."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _RESULT_BYTES_AHEAD)


def open_reader(layout: Layout) -> Reader:
    """Return the reader for a registry of this size. Its processes start while the caller prepares."""
    records = count_records(layout, limit=MIN_RECORDS_FOR_TWO_PROCESSES)
    if records < MIN_RECORDS_FOR_PROCESS or (os.cpu_count() or 1) < 2 or not sys.executable:
        return Reader(layout)
    return ReaderPool(layout, 1 if records < MIN_RECORDS_FOR_TWO_PROCESSES else 2)
