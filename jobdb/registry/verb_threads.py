"""The threads in which an asyncio registry runs verbs, and what becomes of a result that nobody has received.

Created by ``asynchronous.py``; calls what it is given. A verb is never interrupted: a task that is cancelled while its
verb runs goes on at once, and the verb runs to its end in its thread. If its result must not be lost, as a claim must
not, the caller gives an ``undo``, which is called with it unless the task has received it.

Prior art: ``asyncio.to_thread``, which drops the result of a cancelled call; anyio's ``to_thread.run_sync``, which by
default holds the cancelled task until the call has ended, for up to ``busy_timeout_sec`` here. Rejected: the event
loop's default executor, which others may fill or shut down.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..engines.liveness import closed_error
from ..errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

LOGGER = logging.getLogger("jobdb.asyncio")
MAX_THREADS = 8
"""As many as PostgreSQL's pool has connections. On SQLite, they are as many commits as may share one sync."""

_Result = TypeVar("_Result")


async def ended(job: Future[_Result]) -> None:
    """Wait until a job in a thread has ended. Cancelling this does not cancel the job."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not woken.done():
            woken.set_result(None)

    def wake(_job: Future[_Result]) -> None:
        with suppress(RuntimeError):  # the event loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(end)

    job.add_done_callback(wake)
    await woken


class _Undoable(Generic[_Result]):
    """A call whose result is either received or undone, never both and never neither.

    Args:
        call: returns the result.
        undo: undoes it; called in a thread.
    """

    def __init__(self, call: Callable[[], _Result], undo: Callable[[_Result], None]) -> None:
        self._call = call
        self._undo = undo
        self._lock = threading.Lock()
        self._results: list[_Result] = []  # empty once the result was received or undone
        self._given_up = False

    def run(self) -> None:
        """Make the call; undo it if it was given up meanwhile."""
        result = self._call()
        with self._lock:
            self._results.append(result)
            given_up = self._given_up
        if given_up:
            self.undo()

    def give_up(self) -> bool:
        """Note that nobody will receive the result; return whether there is one to undo already."""
        with self._lock:
            self._given_up = True
            return bool(self._results)

    def receive(self) -> list[_Result]:
        """Return the result, in a list; an empty one if it was undone."""
        with self._lock:
            received, self._results = self._results, []
            return received

    def undo(self) -> None:
        """Undo the result, unless it was received or undone."""
        for result in self.receive():
            try:
                self._undo(result)
            except Exception:
                LOGGER.exception("the result of a cancelled call could not be undone")


class VerbThreads:
    """A bounded pool of threads for the verbs of one registry.

    Args:
        check: called before each verb; raises if the registry cannot be used.
        place: the database, as messages name it.
    """

    def __init__(self, check: Callable[[], None], place: object) -> None:
        self._check = check
        self._place = place
        self._executor = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="jobdb-async")
        self._unreceived: set[_Undoable[Any]] = set()
        self._closed = False

    def submit(self, call: Callable[[], _Result]) -> Future[_Result]:
        """Have a thread make a call, with the context variables of the caller.

        Raises:
            ForkedRegistry: this is not the process that opened the registry; it has none of the threads.
            InvalidInput: the registry is closed.
        """
        self._check()
        try:
            return self._executor.submit(copy_context().run, call)
        except RuntimeError:
            if self._closed:
                raise closed_error(self._place) from None
            raise

    async def run(self, call: Callable[[], _Result], undo: Callable[[_Result], None] | None = None) -> _Result:
        """Make a call in a thread, and return its result.

        If the task is cancelled, a call that no thread has begun is not made; one that runs is left to its end.

        Args:
            call: returns the result.
            undo: called with the result, in a thread, if the task does not receive it.

        Raises:
            ForkedRegistry, InvalidInput: as for `submit`.
            BaseException: whatever the call raises.
        """
        if undo is None:
            job = self.submit(call)
            try:
                await ended(job)
            except BaseException:
                job.cancel()
                raise
            return job.result()
        return await self._run_undoable(_Undoable(call, undo))

    async def _run_undoable(self, undoable: _Undoable[_Result]) -> _Result:
        self._unreceived.add(undoable)
        job: Future[None] | None = None
        try:
            job = self.submit(undoable.run)
            await ended(job)
        except BaseException:
            self._give_up(undoable, job)
            raise
        self._unreceived.discard(undoable)
        job.result()
        for result in undoable.receive():
            return result
        raise closed_error(self._place)  # and the result was undone

    def _give_up(self, undoable: _Undoable[Any], job: Future[None] | None) -> None:
        """Have the result undone: by the thread that makes the call, or by another one if the call has been made."""
        if undoable.give_up():
            with suppress(InvalidInput, RuntimeError):  # the threads are being ended, and `close` undoes it
                job = self.submit(undoable.undo)
        elif job is not None:
            job.cancel()
        if job is None:
            self._unreceived.discard(undoable)
        else:
            job.add_done_callback(lambda _job: self._unreceived.discard(undoable))

    def close(self) -> None:
        """Let the calls that were submitted run to their ends, undo what nobody has received, and end the threads.

        It blocks until all that is done.
        """
        self._closed = True
        self._executor.shutdown()
        while self._unreceived:
            with suppress(KeyError):  # its task has just received it
                self._unreceived.pop().undo()

    def end_when_idle(self) -> None:
        """Let the threads end once the calls that were submitted have ended. It does not wait for that."""
        self._closed = True
        self._executor.shutdown(wait=False)
