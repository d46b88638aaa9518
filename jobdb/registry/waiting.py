"""The verbs that wait, written once for threads and for asyncio.

Called by the verbs (:func:`waits`, :func:`paged`), by ``follower.py``, and by the asyncio face, which drives the same
generators itself; calls the store of the registry that waits.

A verb that waits is a generator: it looks, and yields a :class:`WaitForChange` if there is nothing yet. Whoever drives
it waits for that, in its own way, and resumes it. Prior art: psycopg's generators, which yield what they wait for, and
its two drivers ``wait()`` and ``wait_async()``. Rejected: an event loop under the synchronous verbs, and a second
version of each verb; one of the two would always be the one that nobody has tested.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from ..system.descriptor_shortage import is_shortage, shortage_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..engines.store import Store
    from ..model import Page
    from .base import RegistryBase

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")
_Registry = TypeVar("_Registry", bound="RegistryBase")


class WaitForChange:
    """A step that has to wait until the database has changed.

    Args:
        seen: the version of the database that was looked at, as ``Store.data_version()`` returned it.
        timeout_sec: the maximum time to wait, in seconds.
    """

    __slots__ = ("seen", "timeout_sec")

    def __init__(self, seen: int, timeout_sec: float) -> None:
        self.seen = seen
        self.timeout_sec = timeout_sec


class Done(Generic[_Result]):
    """The result of a verb that need not wait any more."""

    __slots__ = ("value",)

    def __init__(self, value: _Result) -> None:
        self.value = value


Waiting = Generator[WaitForChange, None, _Result]
"""A verb that waits: it yields how, and returns its result."""


def advance(steps: Waiting[_Result]) -> WaitForChange | Done[_Result]:
    """Run a waiting verb up to its next wait, or to its end.

    Raises:
        StorageFailed: no file descriptor is left.
    """
    try:
        return next(steps)
    except StopIteration as end:
        return Done(end.value)
    except OSError as error:
        if is_shortage(error):
            raise shortage_error(error) from error
        raise


def finish(store: Store, steps: Waiting[_Result]) -> _Result:
    """Run a waiting verb to its end, waiting in the calling thread."""
    while isinstance(found := advance(steps), WaitForChange):
        store.wait_for_change(found.seen, found.timeout_sec)
    return found.value


def waits(
    verb: Callable[Concatenate[_Registry, _Params], Waiting[_Result]],
) -> Callable[Concatenate[_Registry, _Params], _Result]:
    """Make a method that waits in the calling thread of one that is a generator; see `steps_of`."""

    @wraps(verb)
    def run(registry: _Registry, /, *args: _Params.args, **options: _Params.kwargs) -> _Result:
        return finish(registry.store, verb(registry, *args, **options))

    return run


def steps_of(verb: Callable[_Params, _Result]) -> Callable[_Params, Waiting[_Result]]:
    """Return the generator that `waits` made a verb of."""
    return cast("Callable[_Params, Waiting[_Result]]", cast("Any", verb).__wrapped__)


def paged(
    verb: Callable[Concatenate[_Registry, _Params], Iterator[Page[_Item, Any]]],
) -> Callable[Concatenate[_Registry, _Params], Iterator[_Item]]:
    """Make a method that iterates over items of one that yields pages; see `pages_of`."""

    @wraps(verb)
    def run(registry: _Registry, /, *args: _Params.args, **options: _Params.kwargs) -> Iterator[_Item]:
        for page in verb(registry, *args, **options):
            yield from page

    return run


def pages_of(verb: Callable[_Params, Iterator[_Item]]) -> Callable[_Params, Iterator[Page[_Item, Any]]]:
    """Return the iterator over pages that `paged` made a verb of."""
    return cast("Callable[_Params, Iterator[Page[_Item, Any]]]", cast("Any", verb).__wrapped__)
