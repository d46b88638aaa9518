"""The ``logs`` command, which shows what an attempt of a job has printed.

Called by the ``jobdb`` group (``commands.py``), when the command is run; calls the registry, for the path of the log,
and ``jobdb.work.logs``, which reads it.
"""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import InvalidInput, Refused, StorageFailed

from . import output
from .claimed_job import resolve_job
from .context import open_registry
from .messages import print_hint
from .parameters import AsJson, ClaimedJobId

if TYPE_CHECKING:
    from jobdb.model import Attempt
    from jobdb.registry import Registry
    from jobdb.work.logs import LogReader

DEFAULT_LINES = 1000
_POLL_SEC = 0.2
_POLLS_PER_LOOK = 10
"""After how many polls the registry is asked even if no change was noticed."""


def logs(
    ctx: typer.Context,
    job: ClaimedJobId = None,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", help="The attempt. Default: the last one.", min=1)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show further output as it is written, until the attempt is over.")
    ] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines", "-n", metavar="N", help=f"Begin with the last N lines. Default: {DEFAULT_LINES}.", min=0
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Begin with the first line.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what an attempt of a job has printed.

    The log is on the host whose worker ran the attempt. In a pipe the output is exact; on a terminal its control
    characters are escaped. With --json: one object per attempt, with its worker, its host, and the path and the size
    of its log, instead of the output.

    With --follow the command ends when the job has ended or the attempt has lost it; a job that no worker has run yet
    is waited for.

    \b
    Examples:
      jobdb logs 0f3a9c2d7b11 --follow
      jobdb logs 0f3a9c2d7b11 --attempt 1 --all > attempt-1.log
    """
    job = resolve_job(job)
    if everything and lines is not None:
        raise InvalidInput("--all and --lines both say where to begin; give one of them")
    if as_json and (follow or everything or lines is not None):
        raise InvalidInput("--json shows where the logs are, not the output; leave out --follow, --lines and --all")
    with open_registry(ctx) as registry:
        if as_json:
            for one in _attempts(registry, job, attempt):
                output.print_json({**one.as_dict(), "bytes": _size(one)})
            return
        found = _wait_for_attempt(registry, job, attempt) if follow else _attempts(registry, job, attempt)[-1]
        with _open(registry, job, found, follow=follow) as reader:
            if not everything and reader.skip_to_last(DEFAULT_LINES if lines is None else lines) and lines is None:
                print_hint(f"the last {DEFAULT_LINES} lines; 'jobdb logs {job} --all' shows all", ctx)
            _show(registry, job, found.attempt, reader, follow=follow)


def _attempts(registry: Registry, job: str, number: int | None) -> list[Attempt]:
    """Return the recorded attempts of a job, or the one that was asked for; at least one.

    Raises:
        Refused: there is none.
        InvalidInput: there is no such one.
    """
    recorded = registry.attempts(job)
    if not recorded:
        raise Refused(
            f"job {job} has no log: no worker that keeps logs has run it",
            command=f"'jobdb work' keeps logs; 'jobdb events {job}' shows what was published",
        )
    if number is None:
        return recorded
    found = [one for one in recorded if one.attempt == number]
    if not found:
        known = ", ".join(str(one.attempt) for one in recorded[-10:])
        raise InvalidInput(f"no worker has recorded attempt {number} of job {job}; give one of these: {known}")
    return found


def _wait_for_attempt(registry: Registry, job: str, number: int | None) -> Attempt:
    """Return the attempt to follow; while the job has not ended, wait for it."""
    while True:
        seen = registry.store.data_version()
        found = registry.get(job)
        is_recorded = any(number in (None, one.attempt) for one in registry.attempts(job))
        may_come = not found.terminal and (number is None or number > found.attempt)
        if is_recorded or not may_come:
            return _attempts(registry, job, number)[-1]
        _wait(registry, seen)


def _open(registry: Registry, job: str, attempt: Attempt, *, follow: bool) -> LogReader:
    """Open the log of an attempt; with ``follow``, wait for it while the attempt is not over.

    Raises:
        Refused: there is no log, or it is on another host.
        StorageFailed: it cannot be read.
    """
    from jobdb.work.logs import LogReader

    name = f"attempt {attempt.attempt} of job {job}"
    if attempt.log is None:
        raise Refused(f"{name} has no log: its worker {attempt.worker} on host {attempt.host} kept none")
    while True:
        seen = registry.store.data_version()
        over = _is_over(registry, job, attempt.attempt)
        try:
            return LogReader(attempt.log)
        except FileNotFoundError:
            if attempt.host != os.uname().nodename:
                raise Refused(
                    f"the log of {name} is on host {attempt.host}, at {attempt.log}",
                    command=f"run 'jobdb logs {job} --attempt {attempt.attempt}' there",
                ) from None
            if over:
                raise Refused(f"the log of {name} is gone: there is no file {attempt.log}") from None
            if not follow:
                raise Refused(
                    f"the log of {name} is not there yet, or is gone: there is no file {attempt.log}",
                    command=f"'jobdb logs {job} --follow' waits for it",
                ) from None
        except OSError as problem:
            raise StorageFailed(f"the log {attempt.log} of {name} cannot be read: {problem.strerror}") from problem
        _wait(registry, seen)


def _show(registry: Registry, job: str, attempt: int, reader: LogReader, *, follow: bool) -> None:
    write = _terminal_writer() if sys.stdout.isatty() else output.print_bytes
    polls = 0
    seen = registry.store.data_version()
    over = not follow or _is_over(registry, job, attempt)
    while True:
        for piece in reader.read():  # after the look at the job: when it is over, this is the rest
            write(piece)
        if over:
            write(b"")
            return
        output.flush()
        version = _wait(registry, seen)
        polls += 1
        if version != seen or polls % _POLLS_PER_LOOK == 0:
            seen, over = version, _is_over(registry, job, attempt)


def _terminal_writer() -> Callable[[bytes], None]:
    """Return a function that prints output as text, which the terminal's stream sanitizes; no bytes end the output."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    last = "\n"

    def write(piece: bytes) -> None:
        nonlocal last
        text = decoder.decode(piece, final=not piece)
        if not piece and not (last + text).endswith("\n"):
            text += "\n"
        output.print_text(text)
        last = text or last

    return write


def _is_over(registry: Registry, job: str, attempt: int) -> bool:
    """Return whether an attempt no longer holds its job; then its log is complete."""
    from jobdb.model import JobStatus

    return registry.claim_states([(job, attempt)])[job, attempt] is not JobStatus.RUNNING


def _wait(registry: Registry, seen: int) -> int:
    """Wait for as long as a poll takes, however often the database changes; return its version."""
    time.sleep(_POLL_SEC)
    return registry.store.wait_for_change(seen, 0)


def _size(attempt: Attempt) -> int | None:
    try:
        return None if attempt.log is None else os.stat(attempt.log).st_size
    except OSError:
        return None
