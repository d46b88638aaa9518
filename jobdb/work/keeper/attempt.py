"""The keeper's work: one attempt, from the job's lock to the report of its end.

Called by ``server.py`` in the process that it has forked for the attempt; imports only the standard library and,
through its siblings, two modules of ``jobdb.system``. The order is: lock, leftovers of earlier attempts, ``before``,
the agent, whatever processes it has left behind, ``after``, the report. The keeper gives the lock up, and ends, only
when no process of the attempt is alive.
"""

from __future__ import annotations

import math
import os
import signal
import time

from . import frames
from .agent_process import AgentProcess, StartError, start_agent
from .agent_tree import AgentTree
from .capped_log import CappedLog
from .cgroup import AttemptGroup, is_attempt_group
from .job_lock import Holder, JobLock
from .keeper_io import KeeperIO
from .leftovers import MARK_VARIABLE, attempt_of_mark, find_leftovers, is_running
from .process_tree import HAS_PROC, read_process, stop_and_kill
from .signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket
    from typing import Any

HOLDER_GRACE_SEC = 3.0
"""The time that the holder of the lock has after SIGTERM."""
BLOCKED_SEC = 10.0
"""The wait for processes that were killed, before an attempt that has not begun is given up."""
_LOOK_SEC = 0.02
_SHELL = b"/bin/sh"


class _NotBegunError(Exception):
    """The attempt was stopped before anything of it began.

    Attributes:
        cause: why, as in messages.Ended.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def empty_report(stage: str) -> dict[str, Any]:
    """Return the fields of ``messages.Ended`` for an attempt that has not begun."""
    return {
        "stage": stage,
        "exit_code": None,
        "signal": None,
        "start_error": None,
        "cause": None,
        "duration_sec": 0.0,
        "tail": b"",
        "log_bytes": 0,
        "dropped_bytes": 0,
        "leftovers": 0,
        "contained_by": "group",
    }


class Attempt:
    """One attempt of a job, and all that is known of its processes.

    Args:
        launch: what `launch.encode_launch` made of a Launch.
        worker: the end of the socket pair with the worker.
        signals: this process's signals.
        parent_group: the control group in which the attempt may have its own; None if there is none.
        is_subreaper: whether orphans of the attempt become children of this process.
        share_lock: gives a copy of the lock, and the folder of the control group, to the server.
    """

    def __init__(
        self,
        launch: dict[str, Any],
        worker: socket,
        *,
        signals: Signals,
        parent_group: bytes | None,
        is_subreaper: bool,
        share_lock: Callable[[int, bytes], None],
    ) -> None:
        self._launch = launch
        self._io = KeeperIO(worker, signals, launch["deadline"])
        self._lock = JobLock(launch["lock"])
        self._tree = AgentTree(self._io)
        self._parent_group = parent_group
        self._share_lock = share_lock
        self._environment = {**launch["environment"], MARK_VARIABLE: launch["mark"]}
        self._has_failed = False
        self._number = attempt_of_mark(launch["mark"])
        self._ended = empty_report("run" if launch["before"] is None else "before")
        if is_subreaper and HAS_PROC:
            self._ended["contained_by"] = "subreaper"

    def run(self) -> None:
        """Run the attempt, and report its end if the worker is still there."""
        self._io.send(frames.HELLO, os.getpid())
        try:
            self._take_lock()
            self._kill_leftovers()
            self._prepare()
            self._run_stages()
        except StartError as error:
            self._ended["start_error"] = error.fields()
        except _NotBegunError as error:
            self._ended["cause"] = error.cause
        self._tree.kill()
        self._io.drain()
        self._io.log.close()
        if self._tree.group is not None:
            self._tree.group.remove()
        self._lock.release()
        log = self._io.log
        self._ended.update(tail=log.tail, log_bytes=log.file_bytes, dropped_bytes=log.dropped_bytes)
        self._io.finish(self._ended)

    def kill(self) -> None:
        """Kill all processes of the attempt, and wait for their end; for when `run` was left by an error."""
        self._tree.kill()

    def _take_lock(self) -> None:
        """Wait until the lock is held. A keeper that holds it is told to stop, and is killed if it does not.

        Raises:
            StartError: the lock's file cannot be opened.
            _NotBegunError: the wait was stopped, or was too long.
        """
        asked, asked_at = 0, 0.0
        give_up_at = time.monotonic() + HOLDER_GRACE_SEC + BLOCKED_SEC
        while not self._try_lock():
            now = time.monotonic()
            holder = self._lock.read_holder()
            if holder is not None and holder.attempt > self._number and holder.find() is not None:
                raise _NotBegunError("blocked")  # this attempt is over already
            if holder is not None and holder.pid != asked:
                asked, asked_at = holder.pid, now
                self._io.send(frames.BLOCKED, holder.pid)
                holder.ask_to_stop()
            elif holder is not None and now - asked_at > HOLDER_GRACE_SEC:
                holder.signal(signal.SIGKILL)
            self._wait_for_others(give_up_at)
        if self._lock.is_used():
            self._kill_group_of(self._lock.read_holder())
        process = read_process(os.getpid())
        started = 0 if process is None else process.started
        folder = b""
        if self._parent_group is not None:
            self._tree.group = AttemptGroup.create(self._parent_group, started)
            folder = b"" if self._tree.group is None else self._tree.group.folder
        self._lock.write_holder(started, self._number, folder)
        self._share_lock(self._lock.fileno(), folder)

    def _try_lock(self) -> bool:
        self._check_stopped()
        try:
            return self._lock.acquire()
        except OSError as error:
            raise StartError("lock", error) from error

    def _kill_group_of(self, killed: Holder | None) -> None:
        """Kill the control group that a killed keeper has left, if any."""
        if killed is None or not is_attempt_group(killed.group):
            return
        group = AttemptGroup(killed.group)
        give_up_at = time.monotonic() + BLOCKED_SEC
        while group.is_populated():
            group.kill()
            self._wait_for_others(give_up_at)
        group.remove()

    def _kill_leftovers(self) -> None:
        """Kill the processes of earlier attempts that are still alive, and wait for their end."""
        if not self._launch["sweep"]:
            return
        mark = self._launch["mark"]
        give_up_at = time.monotonic() + BLOCKED_SEC
        told: set[int] = set()
        while found := stop_and_kill(lambda visit: find_leftovers(mark, visit), groups=False):
            for pid in found.keys() - told:
                self._io.send(frames.BLOCKED, pid)
            told |= found.keys()
            while any(map(is_running, found.values())):
                self._wait_for_others(give_up_at)

    def _wait_for_others(self, give_up_at: float) -> None:
        """Wait a moment for the end of processes of earlier attempts.

        Raises:
            _NotBegunError: this attempt was stopped, or the time is over.
        """
        self._check_stopped()
        now = time.monotonic()
        if now >= give_up_at:
            raise _NotBegunError("blocked")
        self._io.wait(now + _LOOK_SEC)

    def _check_stopped(self) -> None:
        if (cause := self._asked_cause()) is not None:
            raise _NotBegunError(cause)

    def _asked_cause(self) -> str | None:
        """Return why nothing more is to be started; None if it may be."""
        return self._io.stop_cause() or ("terminated" if self._io.grace is not None else None)

    def _prepare(self) -> None:
        launch = self._launch
        self._io.log = CappedLog(launch["log"], launch["log_max_bytes"])
        self._io.open_output()
        self._io.open_channel(launch["channel"])
        self._check_stopped()

    def _run_stages(self) -> None:
        launch = self._launch
        before, after = launch["before"], launch["after"]
        is_prepared = before is None or self._run_stage("before", [_SHELL, b"-c", before], None)
        if is_prepared and not self._is_stopped():
            self._run_stage("run", launch["argv"], launch["stdin"])
        self._ended["leftovers"] += self._tree.kill()
        if is_prepared and after is not None and not self._io.is_claim_lost():
            self._io.forget_requests()
            self._run_stage("after", [_SHELL, b"-c", after], None)
            self._ended["leftovers"] += self._tree.kill()

    def _run_stage(self, stage: str, argv: list[bytes], stdin: bytes | None) -> bool:
        """Run a program to its end, and return whether it succeeded; its descendants may still be alive."""
        begun = time.monotonic()
        failure: dict[str, object] = {}
        if stage == "run":
            self._ended["stage"] = stage
        try:
            agent = self._start(argv, stdin)
            self._tree.watch(agent.pid)
            self._watch(stage, agent)
            if self._tree.status is None:
                self._tree.kill()
            failure = _failure(self._tree.status)
        except StartError as error:
            self._tree.kill()
            failure = {"start_error": error.fields()}
        if stage == "run":
            self._ended["exit_code"] = 0 if not failure else None
        if stage == "run" or (failure and not self._has_failed):
            self._ended["duration_sec"] = time.monotonic() - begun
        if failure and not self._has_failed:
            self._has_failed = True
            self._ended.update(failure, stage=stage)
        return not failure

    def _watch(self, stage: str, agent: AgentProcess) -> None:
        """Wait until a program has ended or is to be killed.

        Raises:
            StartError: it could not be started.
        """
        kill_at: float | None = None
        while True:
            self._tree.reap()
            if agent.check_start():
                if agent.joined_group:
                    self._ended["contained_by"] = "cgroup"
                if stage == "run":
                    self._io.send(frames.STARTED, agent.pid)
                if kill_at is not None:
                    self._tree.terminate()  # before, the signal met a process that was not yet the program
            has_ended = self._tree.status is not None and agent.fileno() < 0
            # A program that was told to end may leave processes that are still ending: they have the same grace.
            if has_ended and (kill_at is None or not self._tree.has_children):
                return
            now = time.monotonic()
            if (cause := self._io.stop_cause()) is not None:
                self._set_cause(cause)
                return
            if self._io.grace is not None:
                self._set_cause("terminated")
                if kill_at is None:
                    self._tree.terminate()
                kill_at = min(now + self._io.grace, math.inf if kill_at is None else kill_at)
                self._io.grace = None
            if kill_at is not None and now >= kill_at:
                return
            self._io.wait(kill_at, agent.fileno())

    def _is_stopped(self) -> bool:
        """Return whether the attempt was ended from outside, by now."""
        if (cause := self._asked_cause()) is not None:
            self._set_cause(cause)
        return self._ended["cause"] is not None

    def _set_cause(self, cause: str) -> None:
        if self._ended["cause"] is None or cause == "deadline":
            self._ended["cause"] = cause

    def _start(self, argv: list[bytes], stdin: bytes | None) -> AgentProcess:
        try:
            stdin_fd = os.open(os.devnull if stdin is None else stdin, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StartError("stdin", error) from error
        try:
            return start_agent(
                argv,
                self._environment,
                self._launch["folder"],
                stdin=stdin_fd,
                output=self._io.output_writer,
                group=self._tree.group,
            )
        finally:
            os.close(stdin_fd)


def _failure(status: int | None) -> dict[str, object]:
    """Return the fields that describe a program's failure; none if it has succeeded."""
    code = 0 if status is None else os.waitstatus_to_exitcode(status)
    if code == 0:
        return {}
    return {"exit_code": code} if code > 0 else {"exit_code": None, "signal": -code}
