"""The worker: claims jobs and has a handler or a command do them, in slots, until it is drained or stopped.

Called by applications and by ``jobdb work``. Calls the dispatcher, which does the work, in the thread of `Worker.run`;
the watcher and the runner have threads of their own.

``Worker(registry, handler, concurrency=8).run()``
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from ..core import arguments
from ..engines.identity import read_identity
from ..errors import InvalidInput, JobdbError
from ..system.boot_clock import boottime
from . import transitions
from .dispatcher import Dispatcher
from .host import default_worker_name, describe_worker
from .mailbox import Mailbox
from .runner import Runner, RunnerContext
from .settings import DEFAULT_DRAIN_SEC, DEFAULT_LEASE_SEC, DEFAULT_SLOTS, WorkerSettings, WorkerSummary
from .thread_runner import ThreadRunner
from .urls import url_for_children
from .watcher import Watcher

if TYPE_CHECKING:
    from ..registry import Registry
    from .handlers import Handler
    from .transitions import Transition

    Executor = Literal["threads", "processes"]

LOGGER = logging.getLogger("jobdb.work")
_LONGEST_WAIT_SEC = 60.0


class Worker:
    """A worker of a registry.

    Args:
        registry: an open registry; it stays open.
        handler: a function that does a job, given a ``Work``; or a runner such as ``CommandRunner``. If it returns, the
            job completes: text becomes its detail, a mapping its data. An exception uses up a try; ``RetryLater`` gives
            the job back.
        concurrency: how many jobs it does at a time.
        agent: only jobs of this agent.
        agent_session: only jobs of this session.
        name: its name; host and process id if None.
        lease_sec: the length of its leases, in seconds; at least 0.5. They are renewed after a third.
        drain_sec: how long what runs may go on after `drain`, in seconds.
        executor: "threads", or "processes", in which a handler can be killed; it must then be importable.
        reap: return the jobs of dead workers.
        announce: publish ``started`` for each claim.
        until_empty: end when nothing can be claimed and nothing runs.
        once: end after one job; with ``until_empty``, or after none.
        on_event: called with every transition, in the thread of `run`.

    Attributes:
        name: its name.
        worker_id: its id.

    Example:
        >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
        >>> Worker(registry, lambda work: work.job.prompt.upper(), until_empty=True).run().completed
        1
        >>> registry.get("sort-1").detail
        'SORT'
    """

    def __init__(
        self,
        registry: Registry,
        handler: Handler | Runner,
        *,
        concurrency: int = DEFAULT_SLOTS,
        agent: str | None = None,
        agent_session: str | None = None,
        name: str | None = None,
        lease_sec: float = DEFAULT_LEASE_SEC,
        drain_sec: float = DEFAULT_DRAIN_SEC,
        executor: Executor = "threads",
        reap: bool = True,
        announce: bool = False,
        until_empty: bool = False,
        once: bool = False,
        on_event: Callable[[Transition], object] | None = None,
    ) -> None:
        self._registry = registry
        self._settings = WorkerSettings(
            concurrency=concurrency,
            agent=agent,
            agent_session=agent_session,
            lease_sec=lease_sec,
            drain_sec=drain_sec,
            reap=reap,
            announce=announce,
            until_empty=until_empty,
            once=once,
        ).checked()
        self._runner = _runner_for(handler, executor)
        self._on_event = on_event
        name = default_worker_name() if name is None else arguments.text("name", name, most=256)
        self._info = describe_worker(self._settings, name=name, log_dir=self._runner.log_dir)
        self._mailbox = Mailbox()
        self._wish: Literal["run", "drain", "stop"] = "run"
        self._has_run = False

    @property
    def name(self) -> str:
        """Its name."""
        return self._info.name

    @property
    def worker_id(self) -> str:
        """Its id, of 32 hex digits."""
        return self._info.worker_id

    def drain(self) -> None:
        """Claim nothing more; give back after ``drain_sec`` what still runs then. `run` then ends.

        May be called from any thread and from a signal handler.
        """
        if self._wish == "run":
            self._wish = "drain"
        self._mailbox.wake()

    def stop(self) -> None:
        """Claim nothing more, and stop and give back at once what runs. `run` then ends.

        May be called from any thread and from a signal handler.
        """
        self._wish = "stop"
        self._mailbox.wake()

    def run(self) -> WorkerSummary:
        """Work until drained or stopped, or until ``until_empty`` or ``once`` is fulfilled. Call it once.

        Returns:
            What was done.

        Raises:
            RunnerUnusable: the command is missing or cannot be executed.
            JobdbError: the database cannot be used any more; what ran was stopped.
        """
        if self._has_run:
            raise InvalidInput("a Worker runs once", advice="create another one")
        self._has_run = True
        self._runner.check()
        registry_id = read_identity(self._registry.store).registry_id
        self._registry.add_worker(self._info)
        dispatcher = Dispatcher(
            self._registry,
            self._runner,
            self._mailbox,
            settings=self._settings,
            info=self._info,
            report=self._report,
            clock=boottime,
        )
        watcher = Watcher(self._registry.store, self._mailbox)
        self._report(
            transitions.WorkerStarted(worker=self.name, worker_id=self.worker_id, slots=self._settings.concurrency)
        )
        try:
            self._runner.open(
                RunnerContext(
                    mailbox=self._mailbox,
                    registry=self._registry,
                    concurrency=self._settings.concurrency,
                    registry_id=registry_id,
                    url=url_for_children(self._registry.url),
                    worker=self.name,
                    worker_id=self.worker_id,
                    clock=boottime,
                )
            )
            watcher.start()
            self._work(dispatcher)
        finally:
            self._runner.close()
            with suppress(JobdbError):
                self._registry.remove_worker(self.worker_id)  # a change: it also ends the watcher's wait
            watcher.stop()
            summary = dispatcher.records.tally.summary(dispatcher.exit_code)
            self._report(
                transitions.WorkerEnded(
                    worker=self.name,
                    worker_id=self.worker_id,
                    claimed=summary.claimed,
                    completed=summary.completed,
                    failed=summary.failed,
                    returned=summary.returned,
                    lost=summary.lost,
                )
            )
        return summary

    def _work(self, dispatcher: Dispatcher) -> None:
        """Do rounds until everything is done; after an error, stop what runs and raise it."""
        try:
            while True:
                self._obey(dispatcher)
                due = dispatcher.round()
                if dispatcher.is_done:
                    return
                left = due - boottime()
                if left > 0:
                    self._mailbox.wait(min(left, _LONGEST_WAIT_SEC))
                if dispatcher.linger_sec:
                    time.sleep(dispatcher.linger_sec)
        except JobdbError:
            while not dispatcher.abandon():
                self._mailbox.wait(0.05)
            raise
        except BaseException:  # Ctrl-C in an application: give back what runs, as `stop` does
            self.stop()
            with suppress(JobdbError):
                self._finish(dispatcher)
            raise

    def _finish(self, dispatcher: Dispatcher) -> None:
        end = time.monotonic() + self._runner.patience_sec + 1.0
        while not dispatcher.is_done and time.monotonic() < end:
            self._obey(dispatcher)
            dispatcher.round()
            self._mailbox.wait(0.05)

    def _obey(self, dispatcher: Dispatcher) -> None:
        if self._wish == "stop":
            dispatcher.kill()
        elif self._wish == "drain":
            dispatcher.drain()

    def _report(self, transition: Transition) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(transition)
        except Exception:  # whoever watches must not end the work
            LOGGER.exception("on_event failed for %s", transition.kind)


def _runner_for(handler: Handler | Runner, executor: str) -> Runner:
    if executor not in ("threads", "processes"):
        raise InvalidInput(f"executor must be 'threads' or 'processes', not {arguments.shown(executor)}")
    if isinstance(handler, Runner):
        return handler
    if not callable(handler):
        raise InvalidInput(f"handler must be a function of a Work, not {arguments.shown(handler)}")
    if executor == "threads":
        return ThreadRunner(handler)
    from .process_runner import ProcessRunner

    return ProcessRunner(handler)
