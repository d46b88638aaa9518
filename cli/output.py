"""Data on stdout: lines, JSON and tab-separated values, written in UTF-8 and flushed with an error that is noticed.

Called by every command; ``messages`` writes to stderr, ``tables`` draws on a terminal. Text that came from somebody
else (prompts, details, names) is sanitized first: a control character in a prompt must not steer the terminal. The
functions here sanitize what they are given; on a terminal the streams do it again for whatever is written by another
way (`jobdb.system.terminal`), and so does the console on which tables are drawn.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from jobdb.system.terminal import sanitize, sanitize_json, wrap_terminal

if TYPE_CHECKING:
    from jobdb.errors import StorageFailed


def prepare_streams() -> None:
    """Make the streams write UTF-8 whatever the locale, with escapes for what UTF-8 cannot hold.

    A closed stream is replaced by an empty one, so that no file that is opened later takes its descriptor and receives
    what was meant for it. With stdout closed no command is started: its answer would be lost.

    Raises:
        InvalidInput: stdout is closed.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        from jobdb.errors import InvalidInput

        raise InvalidInput("stdout is closed; leave it open or redirect it, for example with >/dev/null")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.stdout, sys.stderr = wrap_terminal(sys.stdout), wrap_terminal(sys.stderr)


def on_terminal() -> bool:
    """Tell whether stdout is a terminal that can show tables."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def print_line(text: str) -> None:
    """Print one line of data, as it is."""
    print_text(text + "\n")


def print_text(text: str) -> None:
    """Print text without a line end; a terminal's stream sanitizes it."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_error(error) from error


def print_bytes(content: bytes) -> None:
    """Print bytes exactly: for a pipe or a file, not for a terminal."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_error(error) from error


def print_json(value: object) -> None:
    """Print a JSON value on one line: compact, in UTF-8, with escapes for characters that a terminal does not show."""
    import json

    print_line(sanitize_json(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))


def print_payload(payload: str) -> None:
    """Print an event's payload exactly as it is sent; on a terminal, with JSON escapes for control characters."""
    print_line(sanitize_json(payload) if sys.stdout.isatty() else payload)


def print_tsv(*values: object) -> None:
    """Print values on one line with tabs between them; None becomes ``-``."""
    print_line("\t".join("-" if value is None else sanitize(str(value)) for value in values))


def flush() -> None:
    """Pass everything printed to the reader now: before a wait, and before an event counts as handled."""
    error = flush_or_discard_stdout()
    if isinstance(error, BrokenPipeError):
        raise error
    if error is not None:
        raise stdout_error(error) from error


def flush_or_discard_stdout() -> OSError | None:
    """Flush stdout; where that fails, discard the rest, or the interpreter's last flush would fail with a traceback.

    Returns:
        The error with which flushing failed.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def stdout_error(error: OSError) -> StorageFailed:
    """Return the error for data that could not be written to stdout: a full disk, a terminal that is gone."""
    from jobdb.errors import StorageFailed

    return StorageFailed(
        f"stdout could not be written: {error.strerror}. The command itself succeeded, but part of its output is lost",
        advice="solve that, and check the current state before you run the command again",
    )
