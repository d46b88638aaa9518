"""The conversion of verbs of ``Registry`` to those of ``AsyncRegistry``: a function for each way of running it.

Called by ``asynchronous.py``, once per verb, when it is imported. Each takes the verb and returns what calls it in a
thread, with the verb's parameters and documentation; mypy derives the signature. They call the threads, the watcher and
the generators of ``waiting.py``, and no database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from .async_follower import AsyncFollower
from .async_working import AsyncWorking, Heartbeats
from .waiting import Done, WaitForChange, Waiting, advance, pages_of, steps_of

if TYPE_CHECKING:
    from .change_watcher import ChangeWatcher
    from .follower import Follower
    from .verb_threads import VerbThreads
    from .working import Working

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")
_Target = TypeVar("_Target")
_Target_co = TypeVar("_Target_co", covariant=True)


class ThreadBacked(Generic[_Target_co]):
    """An object with the verbs of another one, which run in threads.

    Args:
        target: the other one.
        threads: run the verbs.
        watcher: waits for changes of the database.
        heartbeats: time the heartbeats of `AsyncRegistry.working`.
    """

    def __init__(
        self, target: _Target_co, threads: VerbThreads, watcher: ChangeWatcher, heartbeats: Heartbeats
    ) -> None:
        self._target = target
        self._threads = threads
        self._watcher = watcher
        self._heartbeats = heartbeats

    async def _finish(self, steps: Waiting[_Result], undo: Callable[[_Result], None] | None) -> _Result:
        """Run a waiting verb to its end: its looks in threads, its waits here."""

        def undo_end(found: WaitForChange | Done[_Result]) -> None:
            if undo is not None and isinstance(found, Done):
                undo(found.value)

        undo_step = None if undo is None else undo_end
        while isinstance(found := await self._threads.run(partial(advance, steps), undo_step), WaitForChange):
            await self._watcher.wait(found)
        return found.value


def in_thread(
    verb: Callable[Concatenate[_Target, _Params], _Result], *, undo: Callable[[_Target, _Result], None] | None = None
) -> Callable[Concatenate[ThreadBacked[_Target], _Params], Coroutine[Any, Any, _Result]]:
    """Return a verb that runs in a thread.

    Args:
        verb: the verb.
        undo: called with its result, in a thread, if the task has been cancelled meanwhile.
    """

    @wraps(verb)
    async def run(face: ThreadBacked[_Target], /, *args: _Params.args, **options: _Params.kwargs) -> _Result:
        target = face._target
        return await face._threads.run(
            partial(verb, target, *args, **options), None if undo is None else partial(undo, target)
        )

    return run


def waiting(
    verb: Callable[Concatenate[_Target, _Params], _Result], *, undo: Callable[[_Target, _Result], None] | None = None
) -> Callable[Concatenate[ThreadBacked[_Target], _Params], Coroutine[Any, Any, _Result]]:
    """Return a verb that needs no thread while it waits.

    Args:
        verb: one that :func:`waits` has made.
        undo: as for `in_thread`.
    """
    steps = steps_of(verb)

    @wraps(verb)
    async def run(face: ThreadBacked[_Target], /, *args: _Params.args, **options: _Params.kwargs) -> _Result:
        target = face._target
        return await face._finish(steps(target, *args, **options), None if undo is None else partial(undo, target))

    return run


def iterating(
    verb: Callable[Concatenate[_Target, _Params], Iterator[_Item]],
) -> Callable[Concatenate[ThreadBacked[_Target], _Params], AsyncIterator[_Item]]:
    """Return a verb that is an asynchronous iterator; a thread reads each page.

    Args:
        verb: one that :func:`paged` has made.
    """
    pages = pages_of(verb)

    @wraps(verb)
    async def run(
        face: ThreadBacked[_Target], /, *args: _Params.args, **options: _Params.kwargs
    ) -> AsyncIterator[_Item]:
        reading = pages(face._target, *args, **options)
        while (page := await face._threads.run(partial(next, reading, None))) is not None:
            for item in page:
                yield item

    return run


def following(
    verb: Callable[Concatenate[_Target, _Params], Follower],
) -> Callable[Concatenate[ThreadBacked[_Target], _Params], AsyncFollower]:
    """Return a verb that follows events as an asynchronous iterator."""

    @wraps(verb)
    def run(face: ThreadBacked[_Target], /, *args: _Params.args, **options: _Params.kwargs) -> AsyncFollower:
        return AsyncFollower(partial(verb, face._target, *args, **options), face._threads, face._watcher)

    return run


def keeping(
    verb: Callable[Concatenate[_Target, _Params], Working],
) -> Callable[Concatenate[ThreadBacked[_Target], _Params], AsyncWorking]:
    """Return a verb that keeps a claim alive during a block."""

    @wraps(verb)
    def run(face: ThreadBacked[_Target], /, *args: _Params.args, **options: _Params.kwargs) -> AsyncWorking:
        return AsyncWorking(verb(face._target, *args, **options), face._threads, face._heartbeats)

    return run
