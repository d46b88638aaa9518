"""Ad-hoc queries: one read-only SELECT, meant for the documented views, in a process of its own.

Called by the store. That process can be killed whatever it is doing, and its memory is limited: see
:mod:`.query_process`. It opens the database itself, so its end affects neither the connections nor the locks of this
process.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ... import errors
from ...core.arguments import text
from ...errors import InvalidInput, JobdbError, StorageFailed, TimedOut
from ...system.isolated_python import isolated_command
from ...system.subprocess_env import without_secrets
from .query_process import BUSY_SEC, timeout_message

if TYPE_CHECKING:
    from pathlib import Path

    from ..store import Row

_PROGRAM = "from jobdb.engines.sqlite.query_process import main; main()"
START_TIMEOUT_SEC = 30.0
"""The time that a busy machine may need to start a process."""
GRACE_SEC = 0.5
"""The process ends on its own where it can, and reports that; it is killed this much later."""
MAX_TIMEOUT_SEC = 7 * 86_400
MAX_QUERY_CHARS = 1_048_576
"""In characters."""


def run_query(path: Path, sql: str, *, limit: int, timeout_sec: float) -> tuple[list[str], list[Row]]:
    """Run one SELECT.

    Args:
        path: the database.
        sql: the statement.
        limit: the maximum number of rows.
        timeout_sec: how long it may take, in seconds.

    Returns:
        The column names and the rows.

    Raises:
        InvalidInput: it is not a single SELECT on the views, or its result is too large.
        TimedOut: it took too long.
        StorageFailed: the process could not be started, or was killed.
    """
    sql = text("the query", sql, most=MAX_QUERY_CHARS)
    timeout_sec = min(max(0.0, timeout_sec), MAX_TIMEOUT_SEC) if timeout_sec == timeout_sec else 0.0
    request = json.dumps({"path": os.fspath(path), "sql": sql, "limit": limit, "timeout_sec": timeout_sec})
    try:
        process = subprocess.Popen(
            isolated_command(_PROGRAM),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=without_secrets(os.environ),
            process_group=0,  # Ctrl-C is for this process, which then kills the other
        )
    except OSError as problem:
        raise StorageFailed(f"cannot start a process for the query: {problem.strerror}; try again") from problem
    with process:
        try:
            return _read_answer(process, request, timeout_sec)
        finally:
            process.kill()


def _read_answer(process: subprocess.Popen[bytes], request: str, timeout_sec: float) -> tuple[list[str], list[Row]]:
    assert process.stdin is not None and process.stdout is not None
    found: list[Any] = []
    with _Watchdog(process, START_TIMEOUT_SEC):
        with suppress(BrokenPipeError):  # it has ended, which is detected below
            process.stdin.write(request.encode("ascii") + b"\n")
            process.stdin.close()
        started = process.stdout.readline()
    with _Watchdog(process, timeout_sec + GRACE_SEC) as watchdog:
        for line in process.stdout if started else ():
            found.append(json.loads(line, object_hook=_bytes_or_end))
    end = found.pop() if found else None
    if not isinstance(end, dict):
        if watchdog.fired:
            raise TimedOut(timeout_message(timeout_sec))
        raise StorageFailed("the process that ran the query was killed before it was done; try again")
    if end["error"] is not None:
        raise _error(end["error"], end["message"], end["advice"], end["command"])
    columns, *rows = found
    return columns, [tuple(row) for row in rows]


class _Watchdog:
    """A context manager that kills a process after a time limit, unless the block is exited before."""

    def __init__(self, process: subprocess.Popen[bytes], after_sec: float) -> None:
        self._process = process
        self._timer = threading.Timer(after_sec, self._fire)
        self._timer.daemon = True
        self.fired = False

    def _fire(self) -> None:
        self.fired = True
        self._process.kill()

    def __enter__(self) -> _Watchdog:
        self._timer.start()
        return self

    def __exit__(self, *_failure: object) -> None:
        self._timer.cancel()


def _bytes_or_end(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["hex"]) if "hex" in value else value


def _error(name: str, message: str, advice: str, command: str) -> JobdbError:
    kind = getattr(errors, name, None)
    if kind is errors.Busy:
        return errors.Busy(message, waited_sec=BUSY_SEC, advice=advice, command=command)
    if isinstance(kind, type) and issubclass(kind, JobdbError):
        return kind(message, advice=advice, command=command)
    return InvalidInput(message, advice=advice, command=command)
