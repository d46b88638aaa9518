"""The messages of a keeper to its worker.

Used by the worker, which gets them from `client.Keeper.receive`; ``client.py`` makes them from the keeper's frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Stage: TypeAlias = Literal["before", "run", "after"]
Cause: TypeAlias = Literal["terminated", "killed", "deadline", "blocked"]
Containment: TypeAlias = Literal["cgroup", "subreaper", "group"]


@dataclass(frozen=True, slots=True)
class Started:
    """The agent's program has begun.

    Attributes:
        pid: its process id.
    """

    pid: int


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines of the channel.

    Attributes:
        data: the lines, each with its newline. One that begins with `channel_lines.CUT_LINE_MARK` stands for a line
            that was too long: a sentence and the line's begin.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Activity:
    """There was output; said at most once a second."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """The keeper waits for the end of a process: of an earlier attempt, or one of its own that does not die.

    Attributes:
        pid: the process's id; of an earlier attempt, it may be its keeper's.
    """

    pid: int


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why a program could not be started.

    Attributes:
        part: what is wrong: "command", "folder", "stdin", "channel", "lock" or "process" (the system has no more).
        errno: the system's number for the reason, such as ``errno.ENOENT``.
        text: the system's words for it.
    """

    part: str
    errno: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """No process of the attempt is alive. The last message.

    Attributes:
        stage: the first stage that failed; if none did, or nothing began, the stage that was reached.
        exit_code: that of the stage's program, 0 if none failed; None if it was ended by a signal or did not begin.
        signal: the signal that ended it.
        start_error: why it could not be started.
        cause: why it was ended from outside; None if it was not. "terminated": by `Keeper.terminate`, whatever the exit
            code. "killed": by `Keeper.kill`, or since another attempt or an administrator has ended the keeper.
            "deadline": it was not extended in time. "blocked": the attempt did not begin, since processes of an earlier
            one cannot be killed now.
        duration_sec: how long that program ran; the agent's, if all succeeded.
        tail: the last 4 KiB of the output.
        log_bytes: how many bytes of output are in the log.
        dropped_bytes: how many are not.
        leftovers: how many processes had to be killed after the agent had ended by itself.
        contained_by: what held the processes: a control group, the keeper as a subreaper, or only a process group.
    """

    stage: Stage
    exit_code: int | None
    signal: int | None
    start_error: StartFailure | None
    cause: Cause | None
    duration_sec: float
    tail: bytes
    log_bytes: int
    dropped_bytes: int
    leftovers: int
    contained_by: Containment


@dataclass(frozen=True, slots=True)
class Lost:
    """The keeper is gone without a report. The last message.

    Its server, or else this process (`client.KeeperServer.kill_orphans`), kills what it leaves behind.

    Attributes:
        started: False if the keeper had not even begun, so that nothing of the attempt was ever run.
    """

    started: bool


Message: TypeAlias = Started | Lines | Activity | Blocked | Ended | Lost


def decode_ended(fields: dict[str, Any]) -> Ended:
    """Return the report of an attempt's end, from the content of its frame."""
    failure = fields.pop("start_error")
    return Ended(start_error=None if failure is None else StartFailure(*failure), **fields)
