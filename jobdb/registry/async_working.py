"""``AsyncRegistry.working``: a block that keeps a claim alive while a task does its job, and ends the job with it.

Created by ``asynchronous.py``; drives the ``Working`` of ``working.py``, whose renewals and outcomes it has run in the
registry's threads. It adds what only asyncio can do: a block whose claim is gone is cancelled, as ``asyncio.timeout``
cancels one whose time is over.

One thread times the heartbeats of all blocks, and has other threads do them. Rejected: the event loop as the timer,
because a handler that blocks it would lose its claim; a thread per block, because a fleet of agents that mostly wait
for their models has hundreds.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..system.interrupt_safe_flag import Flag
from .cancellation import WorkCancelled
from .verb_threads import LOGGER, VerbThreads, ended

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from concurrent.futures import Future
    from types import TracebackType

    from ..model import Claim, Job
    from .working import Outcome, Work, Working

    _Progress = Callable[[str, float | None, Mapping[str, Any] | None], Coroutine[Any, Any, None]]


class AsyncWork:
    """A claimed job in the hands of the task that does it.

    Args:
        work: the same for synchronous code.
        progress: publishes progress.
    """

    def __init__(self, work: Work, progress: _Progress) -> None:
        self._work = work
        self._progress = progress

    def __repr__(self) -> str:
        return repr(self._work)

    @property
    def claim(self) -> Claim:
        """The claim as it was made."""
        return self._work.claim

    @property
    def job(self) -> Job:
        """The job, as it was when it was claimed."""
        return self._work.job

    @property
    def attempt(self) -> int:
        """The attempt of the claim."""
        return self._work.attempt

    @property
    def cancelled(self) -> bool:
        """True if the work must stop; the block is then cancelled."""
        return self._work.cancelled

    @property
    def reason(self) -> str | None:
        """Why the work must stop, in a sentence; None if it need not."""
        return self._work.reason

    async def progress(self, detail: str = "", pct: float | None = None, data: Mapping[str, Any] | None = None) -> None:
        """Publish ``progress``: a sign of life, which observers see.

        Args:
            detail: a sentence for people, up to 65,536 characters.
            pct: how much is done, 0 to 100; stored in ``data``.
            data: further facts, JSON-serializable.

        Raises:
            asyncio.CancelledError: the work must stop.
            InvalidInput: an argument is invalid.
        """
        await self._progress(detail, pct, data)

    def set_result(self, detail: str = "", data: Mapping[str, Any] | None = None) -> None:
        """Set what the event ``completed`` will say, once the block has ended without an exception.

        Args:
            detail: a sentence for people, up to 65,536 characters.
            data: further facts, JSON-serializable.
        """
        self._work.set_result(detail, data)


class AsyncWorking:
    """An asynchronous context manager that keeps a claim alive while its block does the job, and ends the job with it.

    It is used like ``Registry.working``, with two differences. If the job is cancelled, timed out or lost, the block is
    cancelled: asyncio.CancelledError is raised where it waits, and does not leave the block. If the task is cancelled
    by others, the job is given back; no try is used up.

    Args:
        working: the same for synchronous code.
        threads: run the verbs.
        heartbeats: time the heartbeat.

    Attributes:
        outcome: "completed", "failed" (a try was used up), "returned" or "lost", once the block has ended.

    Example:
        >>> async def main() -> None:
        ...     async with AsyncRegistry.open(folder / "jobs.db", create=True) as registry:
        ...         await registry.register(agent="codex", prompt="sort", job_id="sort-1")
        ...         claim = await registry.claim(worker="host1:4711")
        ...         async with registry.working(claim) as work:
        ...             await work.progress("half of it", pct=50)
        ...             work.set_result("all sorted")
        ...         print((await registry.get("sort-1")).detail)
        >>> asyncio.run(main())
        all sorted
    """

    def __init__(self, working: Working, threads: VerbThreads, heartbeats: Heartbeats) -> None:
        self._working = working
        self._threads = threads
        self._heartbeats = heartbeats
        self._one_at_a_time = threading.Lock()  # a heartbeat and the end
        self._heartbeat: Future[None] | None = None
        self._has_ended = False
        self._task: asyncio.Task[Any] | None = None
        self._cancellations_before = 0
        self._is_in_block = False
        self._is_stopped = False

    @property
    def outcome(self) -> Outcome | None:
        """The end of the block: "completed", "failed" (a try was used up), "returned" or "lost"; None before that."""
        return self._working.outcome

    async def __aenter__(self) -> AsyncWork:
        """Renew the lease and begin.

        Raises:
            StaleAttempt: the claim is gone.
        """
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        try:
            await self._threads.run(self._working.begin)
        except (asyncio.CancelledError, GeneratorExit) as error:
            with suppress(InvalidInput, RuntimeError):  # the registry is being closed
                self._threads.submit(partial(self._finish, error)).add_done_callback(self._log_failure)
            raise
        if self._task is not None:
            self._cancellations_before = self._task.cancelling()
        self._is_in_block = True
        self._heartbeats.add(self._beat, self._working.pause_sec)
        return AsyncWork(self._working.work, self._progress)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._is_in_block = False
        self._heartbeats.remove(self._beat)
        if self._is_stopped and self._task is not None:
            # As in asyncio.timeout: with a further cancellation by others, theirs counts.
            is_own = self._task.uncancel() <= self._cancellations_before
            if is_own and isinstance(error, asyncio.CancelledError):
                error = WorkCancelled(str(self._working.work.reason))
        finishing = self._threads.submit(partial(self._finish, error))
        try:
            await ended(finishing)
        except BaseException:  # cancelled: the outcome is recorded nevertheless
            finishing.add_done_callback(self._log_failure)
            raise
        return finishing.result()

    async def _progress(self, detail: str, pct: float | None, data: Mapping[str, Any] | None) -> None:
        """Publish ``progress`` for the block, from any task."""
        try:
            await self._threads.run(partial(self._working.work.progress, detail, pct, data))
        except WorkCancelled as stop:
            self._stop()
            if asyncio.current_task() is self._task:
                await asyncio.sleep(0)  # the cancellation is raised here
            raise asyncio.CancelledError(stop.reason) from None

    def _stop(self) -> None:
        """Cancel the block, in its event loop."""
        if self._is_in_block and not self._is_stopped and self._task is not None:
            self._is_stopped = True
            self._task.cancel(self._working.work.reason)

    # -- in threads

    def _beat(self) -> None:
        """Have a thread renew the lease or look at the claim, unless one still does."""
        if self._heartbeat is None or self._heartbeat.done():
            self._heartbeat = self._threads.submit(self._keep)

    def _keep(self) -> None:
        with self._one_at_a_time:
            if self._has_ended or self._working.beat():
                return
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._stop)

    def _finish(self, error: BaseException | None) -> bool:
        with self._one_at_a_time:
            self._has_ended = True
            return self._working.finish(error)

    def _log_failure(self, finishing: Future[bool]) -> None:
        if (error := finishing.exception()) is not None:
            LOGGER.error("the end of the work on job %s: %s", self._working.work.job.job_id, error, exc_info=error)


class Heartbeats:
    """One thread that times the heartbeats of all blocks of a registry; it exists only while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = Flag()
        self._blocks: dict[Callable[[], None], tuple[float, float]] = {}  # when the next one is due, and the pause
        self._thread: threading.Thread | None = None

    def add(self, beat: Callable[[], None], pause_sec: float) -> None:
        """Begin with the heartbeat of a block.

        Args:
            beat: has a thread do what is to be done.
            pause_sec: how often, in seconds.
        """
        with self._lock:
            self._blocks[beat] = (time.monotonic() + pause_sec, pause_sec)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobdb-async-heartbeat", daemon=True)
                self._thread.start()
            self._wake.set()

    def remove(self, beat: Callable[[], None]) -> None:
        """End the heartbeat of a block."""
        with self._lock:
            self._blocks.pop(beat, None)
            if not self._blocks:
                self._wake.set()

    def close(self) -> None:
        """End all heartbeats, and the thread. Blocks until it has ended."""
        with self._lock:
            self._blocks.clear()
            thread = self._thread
            self._wake.set()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._wake.clear()
                now = time.monotonic()
                due = {beat: (now + pause, pause) for beat, (at, pause) in self._blocks.items() if at <= now}
                self._blocks |= due
                if not self._blocks:
                    self._thread = None
                    return
                left = min(at for at, _pause in self._blocks.values()) - now
            for beat in due:
                with suppress(InvalidInput, RuntimeError):  # the registry is being closed
                    beat()
            self._wake.wait(left)
