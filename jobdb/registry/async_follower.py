"""Following events with asyncio: the asynchronous iterator that ``AsyncRegistry.subscribe`` returns.

Created by ``asynchronous.py``; drives the ``Follower`` of ``follower.py``, which decides which event counts as handled.
It adds what cancellation needs: a step that has begun is never lost, its event is the answer to the next request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ..errors import InvalidInput
from .follower import advance_follower
from .verb_threads import ended
from .waiting import WaitForChange

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import TracebackType

    from ..model import Event, Job
    from .change_watcher import ChangeWatcher
    from .follower import Follower
    from .verb_threads import VerbThreads


class AsyncFollower:
    """An asynchronous iterator over events; an event is marked as handled when the next one is requested.

    Nothing runs between two requests, so nothing is left behind by a loop that is left early. A request that is
    cancelled loses no event: it is yielded to the next request, or, after a restart, to the next subscriber of that
    name.

    Args:
        subscribe: returns the follower of the database; called with the first request.
        threads: run the steps.
        watcher: waits for changes of the database.

    Attributes:
        outcome: the job, once its iteration has ended; None before that, and when following all jobs.

    Example:
        >>> async def main() -> None:
        ...     async with AsyncRegistry.open(folder / "jobs.db", create=True) as registry:
        ...         await registry.register(agent="codex", prompt="sort", job_id="sort-1")
        ...         await registry.complete("sort-1")
        ...         follower = registry.subscribe("sort-1", subscriber="orchestrator", timeout_sec=10)
        ...         async for event in follower:
        ...             print(event.seq, event.event)
        ...         print(follower.outcome.status)
        >>> asyncio.run(main())
        1 completed
        completed
    """

    def __init__(self, subscribe: Callable[[], Follower], threads: VerbThreads, watcher: ChangeWatcher) -> None:
        self._subscribe = subscribe
        self._threads = threads
        self._watcher = watcher
        self._follower: Follower | None = None
        self._step: Future[Event | WaitForChange | None] | None = None
        self._requested = False
        self._closed = False

    @property
    def outcome(self) -> Job | None:
        """The job, once its iteration has ended; None before that, and when following all jobs."""
        return None if self._follower is None else self._follower.outcome

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Mark the last event as handled and return the next.

        Raises:
            TimedOut: a limit was reached. An event that has arrived meanwhile is not yielded and stays unhandled.
            InvalidInput: another task waits for the next event; or an argument of ``subscribe`` is invalid.
        """
        if self._requested:
            raise InvalidInput("another task waits for an event of this iterator", advice="subscribe in each task")
        self._requested = True
        try:
            while not self._closed:
                is_left_over = self._step is not None
                found = await self._next_step()
                if found is None:
                    break
                if not isinstance(found, WaitForChange):
                    return found
                if not is_left_over:  # else its time limit is one of an earlier moment
                    await self._watcher.wait(found)
        finally:
            self._requested = False
        raise StopAsyncIteration

    async def _next_step(self) -> Event | WaitForChange | None:
        """Go one step, or wait for the one that a cancelled request has begun."""
        if self._step is None:
            self._step = self._threads.submit(self._advance)
        await ended(self._step)
        step, self._step = self._step, None
        return step.result()

    def _advance(self) -> Event | WaitForChange | None:
        if self._follower is None:
            self._follower = self._subscribe()
        return advance_follower(self._follower)

    async def handled(self) -> None:
        """Mark the last event as handled without requesting the next.

        Example:
            >>> async def main() -> None:
            ...     async with AsyncRegistry.open(folder / "jobs.db", create=True) as registry:
            ...         await registry.register(agent="codex", prompt="sort", job_id="sort-1")
            ...         await registry.publish("sort-1", "progress")
            ...         follower = registry.subscribe("sort-1", subscriber="orchestrator", timeout_sec=10)
            ...         event = await anext(follower)
            ...         await follower.handled()
            ...         print((await registry.subscriptions())[0].handled_seq)
            >>> asyncio.run(main())
            1
        """
        if self._step is not None:
            await ended(self._step)  # it began by marking the last event; the next has not been yielded
        elif self._follower is not None:
            await self._threads.run(self._follower.handled)

    async def aclose(self) -> None:
        """End the iteration, as the end of an ``async with`` block does. The last event stays unhandled.

        Example:
            >>> async def main() -> None:
            ...     async with AsyncRegistry.open(folder / "jobs.db", create=True) as registry:
            ...         await registry.register(agent="codex", prompt="sort", job_id="sort-1")
            ...         async with registry.subscribe("sort-1", subscriber="orchestrator") as follower:
            ...             pass
            ...         print([event async for event in follower])
            >>> asyncio.run(main())
            []
        """
        self._closed = True
        if self._step is not None:
            await ended(self._step)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
