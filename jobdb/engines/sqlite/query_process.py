"""The process in which an ad-hoc query runs: started by :mod:`.query`, which kills it when its time is over.

SQLite checks the clock between its instructions. Within one, such as a function over megabytes, it cannot be
interrupted from inside the process: ``instr`` and ``LIKE`` can take hours.

It reads one line of JSON from stdin, the request, and writes lines of JSON: an empty list when it begins, the columns,
a list per row, and an object at the end. The connection is read-only, and a statement may only read: no sealed secret,
no pragma, no attached file, no write; see :mod:`.authorizer`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from jobdb.schema import VIEWS

from ...errors import InvalidInput, JobdbError, TimedOut
from .authorizer import authorize, check_program
from .error_translation import translate

MAX_VALUE_BYTES = 64 * 1_048_576
"""Four times the largest value in a registry, a prompt."""
MAX_RESULT_BYTES = 256 * 1_048_576
MAX_MEMORY_BYTES = 512 * 1_048_576
BUSY_SEC = 5.0
_PROGRESS_INSTRUCTIONS = 10_000


def main() -> None:
    """Answer the request on stdin."""
    request = json.loads(sys.stdin.buffer.readline())
    _write_line([])
    try:
        _answer(Path(request["path"]), request["sql"], request["limit"], request["timeout_sec"])
    except JobdbError as problem:
        _write_line(
            {
                "error": type(problem).__name__,
                "message": problem.message,
                "advice": problem.advice,
                "command": problem.command,
            }
        )
    else:
        _write_line({"error": None})
    sys.stdout.flush()


def _answer(path: Path, sql: str, limit: int, timeout_sec: float) -> None:
    _limit_resources(timeout_sec)
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(round(BUSY_SEC * 1000))
        connection.pragma("trusted_schema", 0)
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        deadline = time.monotonic() + timeout_sec
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _PROGRESS_INSTRUCTIONS)
        check_program(connection, sql)
        connection.authorizer = authorize
        _send_rows(connection, sql, limit)
    except apsw.InterruptError:
        raise TimedOut(timeout_message(timeout_sec)) from None
    except UnicodeDecodeError:
        raise InvalidInput("the result contains text that is not UTF-8; select hex(…) of it") from None
    except (apsw.NoMemError, apsw.TooBigError, MemoryError):
        raise InvalidInput(
            f"the query takes more than {MAX_MEMORY_BYTES >> 20} MiB of memory, or a value of it more than "
            f"{MAX_VALUE_BYTES >> 20} MiB; narrow it"
        ) from None
    except (apsw.SQLError, apsw.AuthError, apsw.BindingsError, apsw.MismatchError, apsw.RangeError) as error:
        raise InvalidInput(
            f"cannot run this query: {error}. Use one SELECT on {', '.join(sorted(VIEWS))}; "
            "'jobdb query \"SELECT * FROM v_jobs LIMIT 1\"' shows the columns"
        ) from None
    except apsw.Error as error:
        raise translate(error, path, BUSY_SEC) from error


def timeout_message(timeout_sec: float) -> str:
    """Return the message for a query that took too long."""
    return f"the query took longer than {timeout_sec:g} s and was ended; narrow it"


def _limit_resources(timeout_sec: float) -> None:
    """Limit the memory, and the processor time in case no process is left to kill this one."""
    apsw.hard_heap_limit(MAX_MEMORY_BYTES)
    with suppress(ImportError, ValueError, OSError):
        import resource

        most = math.ceil(timeout_sec) + 5
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))


def _send_rows(connection: apsw.Connection, sql: str, limit: int) -> None:
    statements = 0

    def trace(cursor: apsw.Cursor, _statement: str, _bindings: object) -> bool:
        """Write the columns before the first statement runs, since no row may follow; refuse a second statement."""
        nonlocal statements
        statements += 1
        if statements == 1:
            _write_line([column[0] for column in cursor.get_description()])
        return statements == 1

    cursor = connection.cursor()
    cursor.exec_trace = trace
    sent = 0
    try:
        for count, row in enumerate(cursor.execute(sql)):
            if count == limit:
                break
            sent += _write_line([{"hex": value.hex()} if isinstance(value, bytes) else value for value in row])
            if sent > MAX_RESULT_BYTES:
                raise InvalidInput(
                    f"the result is larger than {MAX_RESULT_BYTES >> 20} MiB; select fewer columns or rows"
                )
    except apsw.ExecTraceAbort:
        raise InvalidInput("one statement at a time; use one SELECT") from None
    if not statements:
        _write_line([])


def _write_line(value: Any) -> int:
    line = json.dumps(value, separators=(",", ":")) + "\n"
    sys.stdout.write(line)
    if value == []:
        sys.stdout.flush()
    return len(line)
