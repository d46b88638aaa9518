"""The asyncio face of a registry: :class:`AsyncRegistry`, with the verbs of :class:`Registry`.

Called by applications that run an event loop; calls the verbs of ``Registry`` in threads. It implements none of them:
each is declared in a line, and mypy derives its signature from the verb's.

Prior art: httpx and psycopg, which keep one implementation for both of their faces. Rejected: wrapping whatever is
public through ``__getattr__``, which no type checker and no reader can see; drivers of their own for asyncio, because
SQLite blocks anyway, and a second path to PostgreSQL would have to prove again what the first one has proved.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Self, cast

from ..errors import StaleAttempt
from .async_verbs import ThreadBacked, following, in_thread, iterating, keeping, waiting
from .async_working import Heartbeats
from .change_watcher import ChangeWatcher
from .registry import Registry
from .tokens import Tokens
from .verb_threads import LOGGER, VerbThreads, ended

if TYPE_CHECKING:
    from types import TracebackType

    from ..model import Claim, WorkResult
    from ..urls import DatabaseUrl
    from .base import RegistryBase

_Params = ParamSpec("_Params")


class Opening:
    """A registry that is opened when this is awaited, or entered with ``async with``.

    Args:
        open_registry: opens it.
    """

    def __init__(self, open_registry: Callable[[], Registry]) -> None:
        self._open_registry = open_registry
        self._registry: AsyncRegistry | None = None

    def __await__(self) -> Generator[Any, None, AsyncRegistry]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncRegistry:
        self._registry = await self._open()
        return self._registry

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._registry is not None:
            await self._registry.aclose()

    async def _open(self) -> AsyncRegistry:
        threads = VerbThreads(lambda: None, "the registry")
        try:
            return AsyncRegistry(await threads.run(self._open_registry, undo=Registry.close))
        finally:
            threads.end_when_idle()


def opening(open_registry: Callable[_Params, Registry]) -> Callable[_Params, Opening]:
    """Return a function that opens an asyncio registry."""

    @wraps(open_registry)
    def run(*args: _Params.args, **options: _Params.kwargs) -> Opening:
        return Opening(partial(open_registry, *args, **options))

    return run


def _release(registry: RegistryBase, claim: Claim | None) -> None:
    """Release a claim that its task has not received."""
    if claim is None:
        return
    try:
        cast("Registry", registry).release(claim.job_id, attempt=claim.attempt)
    except StaleAttempt:
        pass  # it has ended, or has been returned by a reaper, meanwhile
    except Exception:
        LOGGER.exception(
            "job %s was claimed for a task that was cancelled, and could not be released: it stays claimed until its "
            "lease ends, or until 'registry.release(%r, attempt=%d)'",
            claim.job_id,
            claim.job_id,
            claim.attempt,
        )


def _release_all(registry: RegistryBase, result: WorkResult) -> None:
    """Release the claims of a batch that its task has not received."""
    for claim in result.claims:
        _release(registry, claim)


class AsyncTokens(ThreadBacked[Tokens]):
    """The verbs for the tokens of jobs: those of ``registry.tokens``, awaited."""

    show = in_thread(Tokens.show)
    current = in_thread(Tokens.current)
    list = in_thread(Tokens.list)
    rotate = in_thread(Tokens.rotate)
    revoke = in_thread(Tokens.revoke)
    rekey = in_thread(Tokens.rekey)


class AsyncRegistry(ThreadBacked[Registry]):
    """The job registry for asyncio. Its verbs are those of :class:`Registry`, with the same arguments and errors.

    Await them; iterate with ``async for`` over ``all_jobs``, ``all_events`` and ``subscribe``; enter ``working`` with
    ``async with``. Any number of tasks may share it, in any number of event loops, but not across a fork: a forked
    child gets ForkedRegistry. It runs verbs in up to eight threads. A task that waits needs none: for all of them
    together, one thread watches the database.

    A task can be cancelled in every verb, and goes on at once. A verb that has begun then runs to its end in its
    thread, so whether it was done can only be read from the database. A job that was claimed for a task which was
    cancelled is released at once. An iterable that is given to a verb is read in a thread.

    Args:
        registry: an open registry; closing this one closes it.

    Attributes:
        registry: the registry underneath, for functions that take one; its verbs block.
        tokens: the verbs for the tokens of jobs: show, current, list, rotate, revoke, rekey.

    Example:
        >>> async def main() -> None:
        ...     async with AsyncRegistry.open(folder / "jobs.db", create=True) as registry:
        ...         job = await registry.register(agent="codex", prompt="sort ten problems", job_id="sort-1")
        ...         claim = await registry.claim(agent="codex", worker="host1:4711", lease_sec=60, wait_sec=10)
        ...         await registry.complete(claim.job_id, attempt=claim.attempt)
        ...         async for event in registry.subscribe("sort-1", subscriber="orchestrator"):
        ...             print(event.seq, event.event)
        >>> asyncio.run(main())
        1 completed
    """

    register = in_thread(Registry.register)
    register_many = in_thread(Registry.register_many)
    get = in_thread(Registry.get)
    jobs = in_thread(Registry.jobs)
    all_jobs = iterating(Registry.all_jobs)
    count_by_status = in_thread(Registry.count_by_status)
    wait = waiting(Registry.wait)
    cancel = in_thread(Registry.cancel)
    prune = in_thread(Registry.prune)

    claim = waiting(Registry.claim, undo=_release)
    renew = in_thread(Registry.renew)
    release = in_thread(Registry.release)
    reap = in_thread(Registry.reap)

    publish = in_thread(Registry.publish)
    publish_many = in_thread(Registry.publish_many)
    complete = in_thread(Registry.complete)
    fail = in_thread(Registry.fail)
    events = in_thread(Registry.events)
    all_events = iterating(Registry.all_events)

    ask = in_thread(Registry.ask)
    questions = in_thread(Registry.questions)
    answer = in_thread(Registry.answer)
    wait_for_answer = waiting(Registry.wait_for_answer)

    accept = in_thread(Registry.accept)
    accept_many = in_thread(Registry.accept_many)
    subscribe = following(Registry.subscribe)
    subscriptions = in_thread(Registry.subscriptions)
    refusals = in_thread(Registry.refusals)
    verdict_counts = in_thread(Registry.verdict_counts)

    work_batch = in_thread(Registry.work_batch, undo=_release_all)
    claim_states = in_thread(Registry.claim_states)
    working = keeping(Registry.working)
    add_worker = in_thread(Registry.add_worker)
    remove_worker = in_thread(Registry.remove_worker)
    workers = in_thread(Registry.workers)
    attempts = in_thread(Registry.attempts)
    return_jobs_of_dead_workers = in_thread(Registry.return_jobs_of_dead_workers)

    def __init__(self, registry: Registry) -> None:
        threads = VerbThreads(registry.store.check, registry.url)
        watcher = ChangeWatcher(registry.store, registry.url)
        heartbeats = Heartbeats()
        super().__init__(registry, threads, watcher, heartbeats)
        self.tokens = AsyncTokens(registry.tokens, threads, watcher, heartbeats)
        self.registry = registry
        self._pid = os.getpid()
        self._close_lock = threading.Lock()
        self._closing: Future[None] | None = None

    @property
    def url(self) -> DatabaseUrl:
        """The URL of its database."""
        return self.registry.url

    open = staticmethod(opening(Registry.open))

    async def aclose(self, *, checkpoint: bool = True) -> None:
        """Close the database, as the end of an ``async with`` block does.

        Tasks that wait get an InvalidInput. Verbs that were called before run to their ends first. It is done in a
        thread, which finishes even if the task is cancelled.

        Args:
            checkpoint: as for :meth:`Registry.close`.

        Example:
            >>> async def main() -> None:
            ...     registry = await AsyncRegistry.open(folder / "jobs.db", create=True)
            ...     await registry.aclose()
            >>> asyncio.run(main())
        """
        if os.getpid() != self._pid:
            return  # a forked child has neither its threads nor its connections
        with self._close_lock:
            if self._closing is None:
                closer = ThreadPoolExecutor(1, thread_name_prefix="jobdb-async-close")
                self._closing = closer.submit(self._close, checkpoint)
                closer.shutdown(wait=False)
        await ended(self._closing)
        self._closing.result()

    def _close(self, checkpoint: bool) -> None:
        self._heartbeats.close()
        self._watcher.close()
        self._threads.close()
        self.registry.close(checkpoint=checkpoint)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncRegistry {self.url}>"
