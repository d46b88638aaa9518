"""The runner that starts a command per job, each under a keeper that holds all of its processes.

Created by ``jobdb work``, and by applications that give it to a ``Worker`` as its handler; called by the dispatcher.
One thread talks to all keepers; the dispatcher leaves it orders. Calls the keeper's client and the attempt's folder.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, assert_never

from ..core import arguments
from ..core.log_paths import log_path
from ..core.outcomes import clean
from ..errors import InvalidInput, JobdbError, StorageFailed
from ..system.parent_control import set_child_subreaper
from .artifacts import examine_artifacts
from .attempt_process import AttemptProcess
from .command import agent_environment, check_command, fill_placeholders, uses_prompt
from .command_end import needs_artifacts, read_end, read_loss
from .context import build_context
from .job_folder import JobFolders
from .keeper.client import KeeperServer
from .keeper.launch import Launch
from .keeper.messages import Activity, Blocked, Ended, Lines, Lost, Started
from .logs import make_log_folder
from .mailbox import Alive, Finished, Remark, Running
from .outcomes import Failed, NotStarted, Report, Stop, StopCause, Vanished
from .stray_processes import kill_stray_processes

if TYPE_CHECKING:
    from ..model import Claim
    from .mailbox import Message
    from .runner import RunnerContext
    from .slots import Key

GRACE_SEC = 10.0
AFTER_SEC = 30.0
"""The time that ``--after`` has once its attempt was stopped."""
LOG_MAX_BYTES = 64 << 20
_START_RETRY_SEC = 5.0
_KEEPER_SEC = 10.0
"""The time that a keeper has to kill its processes, before it is killed itself."""
_ORPHANS_SEC, _ORPHANS_STEP_SEC = 5.0, 0.02
_NEVER = float("inf")
LOGGER = logging.getLogger("jobdb.work")


class CommandRunner:
    """Runs a command per job.

    Args:
        argv: the command. ``{prompt}``, ``{prompt_file}``, ``{job_id}`` and ``{attempt}`` in it are replaced. It gets
            the prompt on its standard input unless it names the prompt.
        before: a shell command that runs first, in the same folder and environment; if it fails, the job is given back.
        after: a shell command that runs last, also if the command failed or was stopped.
        workdir: the folder that it runs in; the current one if None.
        log_dir: the folder of the logs of all attempts; None for none.
        grace_sec: the time between SIGTERM and SIGKILL, in seconds.
        log_max_bytes: the longest log; what is in the middle of a longer one is dropped.
        adopt_orphans: make this process the parent of its orphaned descendants, and kill those that no keeper holds.
            For a process that has no other children: ``jobdb work``.

    Example:
        >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
        >>> Worker(registry, CommandRunner(["cat"]), until_empty=True).run().completed
        1
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        before: str | None = None,
        after: str | None = None,
        workdir: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        grace_sec: float = GRACE_SEC,
        log_max_bytes: int = LOG_MAX_BYTES,
        adopt_orphans: bool = False,
    ) -> None:
        words = arguments.items("argv", argv, of="text")
        self._argv = tuple(arguments.text("argv", word, most=10**7, least=0) for word in words)
        if not self._argv or not self._argv[0]:
            raise InvalidInput("argv is empty", advice="name a command")
        self._before = arguments.optional_text("before", before, most=10**6)
        self._after = arguments.optional_text("after", after, most=10**6)
        self._workdir = os.path.abspath(os.curdir if workdir is None else workdir)
        self.log_dir = None if log_dir is None else os.path.abspath(log_dir)
        self._grace_sec = arguments.seconds("grace_sec", grace_sec)
        self._log_max_bytes = arguments.integer("log_max_bytes", log_max_bytes, least=0, most=2**50)
        self._adopts_orphans = arguments.flag("adopt_orphans", adopt_orphans)
        self._after_sec = AFTER_SEC if self._after is not None else 1.0
        self.patience_sec = self._grace_sec + self._after_sec + 10.0
        self._orders: deque[Callable[[], None] | None] = deque()
        self._attempts: dict[Key, AttemptProcess] = {}
        self._selector = selectors.DefaultSelector()
        self._server = KeeperServer()
        self._wake_reader = self._wake_writer = -1
        self._thread: threading.Thread | None = None
        self._context: RunnerContext
        self._folders: JobFolders
        self._environment: dict[str, str] = {}

    def check(self) -> None:
        """Check that the command and its folder are there.

        Raises:
            RunnerUnusable: they are not, or the command cannot be executed.
        """
        check_command(self._argv, folder=self._workdir, path=os.environ.get("PATH"))

    def open(self, context: RunnerContext) -> None:
        """Start the thread and the keeper server."""
        self._context = context
        self._folders = JobFolders(context.registry_id)
        kill_stray_processes(context.registry, context.registry_id)
        self._folders.remove_stale()
        self._environment = agent_environment(os.environ, url=context.url, worker=context.worker)
        if self._adopts_orphans:
            set_child_subreaper()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="jobdb-commands", daemon=True)
        self._thread.start()

    def start(self, claim: Claim, deadline: float) -> None:
        """Order an attempt to be started."""
        key = (claim.job_id, claim.attempt)
        self._order(partial(self._guard, key, partial(self._start, claim, deadline)))

    def extend(self, key: Key, deadline: float) -> None:
        """Order an attempt's deadline to be extended."""
        self._order(partial(self._extend, key, deadline))

    def stop(self, key: Key, stop: Stop) -> None:
        """Order an attempt to be stopped: by SIGTERM and a grace, or at once."""
        self._order(partial(self._stop, key, stop))

    def recorded(self, key: Key, count: int) -> None:
        """Let an attempt publish more."""
        self._order(partial(self._note_recorded, key, count))

    def close(self) -> None:
        """Kill everything that still runs."""
        if self._thread is not None:
            self._order(None)
            self._thread.join()
            os.close(self._wake_reader)
            os.close(self._wake_writer)
            self._folders.close()
        self._selector.close()
        self._server.close()
        if self._adopts_orphans:
            self._kill_orphans()

    def _order(self, order: Callable[[], None] | None) -> None:
        self._orders.append(order)
        with suppress(BlockingIOError):  # it is awake already
            os.write(self._wake_writer, b"x")

    # -- the thread

    def _run(self) -> None:
        with suppress(OSError):  # if there is a reason, the first job is told
            self._server.open()
        while True:
            for ready, _events in self._selector.select(self._timeout()):
                if ready.data is None:
                    with suppress(BlockingIOError):
                        os.read(self._wake_reader, 65536)
                else:
                    self._guard(ready.data.key, partial(self._receive, ready.data))
            while self._orders:
                order = self._orders.popleft()
                if order is None:
                    for attempt in self._attempts.values():
                        attempt.keeper.close()
                        attempt.folder.remove()
                    return
                order()
            self._cut_late()

    def _timeout(self) -> float | None:
        cut_at = min((attempt.cut_at for attempt in self._attempts.values()), default=_NEVER)
        return None if cut_at == _NEVER else max(0.0, cut_at - self._context.clock())

    def _guard(self, key: Key, step: Callable[[], None]) -> None:
        """Do a step for one attempt; whatever goes wrong ends this attempt, and not the thread."""
        try:
            step()
        except Exception as error:
            LOGGER.exception("the attempt %s of job %s failed in the worker", key[1], key[0])
            attempt = self._attempts.get(key)
            report = Vanished(reason=f"an error of the worker itself: {type(error).__name__}: {clean(str(error))}")
            if attempt is None:
                self._post(Finished(key, report))
            else:
                self._finish(attempt, report)

    def _post(self, message: Message) -> None:
        self._context.mailbox.post(message)

    def _start(self, claim: Claim, deadline: float) -> None:
        key = (claim.job_id, claim.attempt)
        try:
            self._launch(claim, deadline)
        except InvalidInput as problem:  # its prompt is too long for an argument, or the job is gone
            self._post(Finished(key, Failed(reason=str(problem), is_final=True)))
        except (JobdbError, OSError) as problem:
            self._post(Finished(key, NotStarted(reason=f"it cannot be started: {problem}", delay_sec=_START_RETRY_SEC)))

    def _launch(self, claim: Claim, deadline: float) -> None:
        job = claim.job
        context = build_context(self._context.registry, job)
        folder = self._folders.create(job.job_id, claim.attempt, prompt=job.prompt, context=context)
        try:
            argv = fill_placeholders(
                self._argv,
                prompt=job.prompt,
                prompt_file=folder.prompt,
                job_id=job.job_id,
                attempt=claim.attempt,
            )
            keeper = self._server.start(
                Launch(
                    argv=tuple(argv),
                    environment={
                        **self._environment,
                        "JOBDB_JOB_ID": job.job_id,
                        "JOBDB_ATTEMPT": str(claim.attempt),
                        "JOBDB_EVENTS": folder.events,
                        "JOBDB_CONTEXT": folder.context,
                    },
                    folder=self._workdir,
                    stdin=None if uses_prompt(self._argv) else folder.prompt,
                    channel=folder.events,
                    log=self._log_of(claim),
                    log_max_bytes=self._log_max_bytes,
                    lock=self._folders.lock_path(job.job_id),
                    mark=f"{self._context.registry_id}:{job.job_id}:{claim.attempt}",
                    deadline=deadline,
                    before=self._before,
                    after=self._after,
                    sweep=claim.attempt > 1,
                )
            )
        except BaseException:
            folder.remove()
            raise
        attempt = AttemptProcess(claim, folder, keeper)
        self._attempts[attempt.key] = attempt
        self._selector.register(keeper.fileno(), selectors.EVENT_READ, attempt)

    def _log_of(self, claim: Claim) -> str | None:
        """Return the path of an attempt's log, in a folder that exists if that is possible."""
        if self.log_dir is None:
            return None
        path = log_path(self.log_dir, claim.job_id, claim.attempt)
        try:
            make_log_folder(path)
        except StorageFailed as problem:  # no reason not to do the job
            self._post(Remark((claim.job_id, claim.attempt), str(problem)))
        return path

    def _extend(self, key: Key, deadline: float) -> None:
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.keeper.extend(deadline)

    def _stop(self, key: Key, stop: Stop) -> None:
        attempt = self._attempts.get(key)
        if attempt is None:
            return
        now = self._context.clock()
        if stop.cause in (StopCause.TAKEN_OVER, StopCause.DEADLINE):
            self._cut(attempt)
        elif stop.at_once:
            attempt.keeper.kill()
            attempt.cut_at = min(attempt.cut_at, now + self._after_sec)
        else:
            attempt.keeper.terminate(self._grace_sec)
            attempt.cut_at = min(attempt.cut_at, now + self._grace_sec + self._after_sec)
        self._resume(attempt)

    def _cut_late(self) -> None:
        """Kill what has not ended long after it was stopped."""
        now = self._context.clock()
        for attempt in self._attempts.values():
            if now >= attempt.cut_at:
                self._cut(attempt)

    def _cut(self, attempt: AttemptProcess) -> None:
        """Kill everything of an attempt, ``after`` too, by ending its deadline; then a keeper that does not react."""
        if attempt.was_cut and attempt.keeper.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(attempt.keeper.pid, signal.SIGKILL)
        attempt.was_cut = True
        now = self._context.clock()
        attempt.keeper.extend(now - 1.0)
        attempt.cut_at = now + _KEEPER_SEC

    def _note_recorded(self, key: Key, count: int) -> None:
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.note_recorded(count):
            self._resume(attempt)

    def _resume(self, attempt: AttemptProcess) -> None:
        if attempt.is_paused:
            attempt.is_paused = False
            self._selector.register(attempt.keeper.fileno(), selectors.EVENT_READ, attempt)

    def _receive(self, attempt: AttemptProcess) -> None:
        """Handle what a keeper says."""
        for message in attempt.keeper.receive():
            match message:
                case Lines(data=data):
                    for each in attempt.read_lines(data):
                        self._post(each)
                case Activity():
                    self._post(Alive(attempt.key))
                case Started(pid=pid):
                    self._post(Running(attempt.key, pid))
                case Blocked(pid=pid):
                    self._post(Remark(attempt.key, f"it waits for the end of process {pid} of an earlier attempt"))
                case Ended():
                    self._handle_end(attempt, message)
                    return
                case Lost():
                    self._selector.unregister(attempt.keeper.fileno())
                    if self._adopts_orphans:
                        self._kill_orphans()
                    self._finish(attempt, read_loss(message))
                    return
                case _:
                    assert_never(message)
        if attempt.must_pause and attempt.cut_at == _NEVER:
            attempt.is_paused = True
            self._selector.unregister(attempt.keeper.fileno())

    def _handle_end(self, attempt: AttemptProcess, ended: Ended) -> None:
        self._selector.unregister(attempt.keeper.fileno())
        if not (needs_artifacts(ended) and attempt.claim.job.expected_artifacts):
            self._finish(attempt, read_end(ended, attempt.words, None))
            return
        # Digests of large files take a while: the other jobs' keepers are not to wait for that.
        threading.Thread(target=self._examine, args=(attempt, ended), name="jobdb-artifacts", daemon=True).start()

    def _examine(self, attempt: AttemptProcess, ended: Ended) -> None:
        report: Report
        try:
            artifacts = examine_artifacts(self._workdir, attempt.claim.job.expected_artifacts)
            report = read_end(ended, attempt.words, artifacts)
        except Exception as problem:
            report = Failed(reason=f"the expected files cannot be examined: {clean(str(problem))}")
        self._order(partial(self._finish, attempt, report))

    def _finish(self, attempt: AttemptProcess, report: Report) -> None:
        """Report the end of an attempt, of which nothing runs any more."""
        if self._attempts.pop(attempt.key, None) is None:
            return
        attempt.keeper.close()
        attempt.folder.remove()
        if (remark := attempt.last_remark()) is not None:
            self._post(remark)
        self._post(Finished(attempt.key, report))

    def _kill_orphans(self) -> None:
        """Kill what killed keepers of a killed server have left to this process."""
        end = time.monotonic() + _ORPHANS_SEC
        while self._server.kill_orphans() and time.monotonic() < end:
            time.sleep(_ORPHANS_STEP_SEC)
