"""The outcome of a command: from the keeper's report, the agent's last words and the files that it made.

Called by the command runner. Pure.

Exit code 0 with all expected files is a success, 75 (EX_TEMPFAIL of sysexits.h) means "try again later", anything else
is a failure. What the worker or the machine is to blame for (the command is missing, ``--before`` failed, processes of
an earlier attempt do not die) gives the job back without using up a try.
"""

from __future__ import annotations

import errno
import signal
from typing import TYPE_CHECKING, Any

from ..core.outcomes import clean
from ..model import EventKind
from .command import NOT_EXECUTABLE, NOT_FOUND
from .outcomes import Deferred, Failed, NotStarted, Report, Stopped, Succeeded, Vanished

if TYPE_CHECKING:
    from .artifacts import Artifacts
    from .channel import FinalWords
    from .keeper.messages import Ended, Lost, StartFailure

EX_TEMPFAIL = 75
RETRY_SEC = 30.0
"""The delay of a job that asked to be tried later, or whose ``--before`` failed."""
_SYSTEM_RETRY_SEC = 5.0
_TAIL_CHARS = 4096


def needs_artifacts(ended: Ended) -> bool:
    """Return whether the expected files decide: the command itself has succeeded."""
    return _has_succeeded(ended) and ended.cause is None


def read_end(ended: Ended, words: FinalWords, artifacts: Artifacts | None) -> Report:
    """Return what a command's end means.

    Args:
        ended: the keeper's report.
        words: what the agent said about its end on its channel.
        artifacts: the expected files; None if there are none, or the command did not succeed.
    """
    if ended.start_error is not None and ended.stage != "after":
        return _not_started(ended.start_error, ended.stage)
    facts = _facts(ended)
    if ended.cause == "blocked":
        reason = "processes of an earlier attempt are still alive and cannot be killed"
        return NotStarted(reason=reason, delay_sec=_SYSTEM_RETRY_SEC)
    if ended.cause is not None:
        detail, data = words.combine(EventKind.ERROR, "", facts)
        return Stopped(data=data)
    if _has_succeeded(ended):
        return _success(ended, words, facts, artifacts)
    if ended.stage == "before":
        tail = clean(ended.tail.decode("utf-8", "replace").strip().rpartition("\n")[2], 500)
        reason = f"--before failed with {_how(ended)}" + (f": {tail}" if tail else "")
        return NotStarted(reason=reason, delay_sec=RETRY_SEC)
    if ended.exit_code == EX_TEMPFAIL:
        detail, data = words.combine(EventKind.ERROR, f"exit code {EX_TEMPFAIL}: try again later", facts)
        return Deferred(reason=detail or "try again later", delay_sec=RETRY_SEC, data=data)
    detail, data = words.combine(EventKind.ERROR, f"the command ended with {_how(ended)}", facts)
    return Failed(reason=detail or "the command failed", data=data)


def read_loss(lost: Lost) -> Report:
    """Return what the end of a keeper means that was killed."""
    if lost.started:
        return Vanished(reason="the keeper of its processes was killed")
    return NotStarted(reason="the keeper of its processes was killed at its start", delay_sec=1.0)


def _success(ended: Ended, words: FinalWords, facts: dict[str, Any], artifacts: Artifacts | None) -> Report:
    facts.pop("tail", None)
    facts["exit_code"] = 0
    if artifacts is not None:
        if artifacts.missing:
            facts["missing"] = dict(artifacts.missing)
            listed = ", ".join(f"{path} {why}" for path, why in artifacts.missing[:10])
            detail, data = words.combine(EventKind.ERROR, f"expected files are missing: {listed}", facts)
            return Failed(reason=detail or "expected files are missing", data=data)
        facts["artifacts"] = artifacts.found
    if ended.stage == "after":
        facts["after"] = _how(ended)
    detail, data = words.combine(EventKind.COMPLETED, "", facts)
    return Succeeded(detail=detail, data=data)


def _has_succeeded(ended: Ended) -> bool:
    return ended.stage == "after" or ended.exit_code == 0


def _facts(ended: Ended) -> dict[str, Any]:
    """Return what observers should know of an end."""
    facts: dict[str, Any] = {"duration_sec": round(ended.duration_sec, 3)}
    if ended.exit_code is not None:
        facts["exit_code"] = ended.exit_code
    if ended.signal is not None:
        facts["signal"] = _signal_name(ended.signal)
    if ended.tail:
        facts["tail"] = clean(ended.tail.decode("utf-8", "replace"), _TAIL_CHARS)
    if ended.leftovers:
        facts["leftovers"] = ended.leftovers
    if ended.dropped_bytes:
        facts["dropped_bytes"] = ended.dropped_bytes
    return facts


def _how(ended: Ended) -> str:
    if ended.start_error is not None:
        return ended.start_error.text
    if ended.signal is not None:
        return f"signal {_signal_name(ended.signal)}"
    return f"exit code {ended.exit_code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _not_started(error: StartFailure, stage: str) -> Report:
    if error.part == "command" and error.errno == errno.E2BIG:
        return Failed(
            reason="the arguments and the environment of the command are too long; write {prompt_file} in the command "
            "instead of {prompt}, or read the prompt from standard input",
            is_final=True,
        )
    what = {"before": "--before: /bin/sh"}.get(stage, "the command")
    if error.part == "command" and stage == "run":
        code = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
        return NotStarted(reason=f"{what} cannot be started: {error.text}", exit_code=code)
    if error.part == "folder":
        return NotStarted(reason=f"the working folder cannot be entered: {error.text}", exit_code=NOT_EXECUTABLE)
    place = "" if error.part in ("command", "process") else f" ({error.part})"
    return NotStarted(reason=f"{what} cannot be started{place}: {error.text}", delay_sec=_SYSTEM_RETRY_SEC)
