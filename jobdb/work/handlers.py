"""The call of a handler for one attempt, and what its end means.

Called by the runners for threads and processes, in the thread that runs the handler. Calls the handler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..core.outcomes import describe_exception
from ..core.publishable import why_unpublishable
from ..model import EventKind
from ..registry.cancellation import WorkCancelled
from ..registry.working import RetryLater
from .outcomes import Deferred, Failed, Report, Stopped, Succeeded

if TYPE_CHECKING:
    from ..registry.cancellation import CancellationToken
    from ..registry.working import Work

Handler = Callable[["Work"], Any]
"""A function that does a job. It returns nothing, text (the detail) or a mapping (the data) for ``completed``."""


def call_handler(handler: Handler, work: Work, token: CancellationToken) -> Report:
    """Do a job; return how it ended.

    An exception is a failure of the job. ``RetryLater`` gives it back. Whoever returns after having learned that the
    work must stop has not done it, as far as anybody can know.
    """
    try:
        result = handler(work)
    except WorkCancelled:
        return Stopped() if token.told else Failed(reason="the handler raised WorkCancelled, and nobody had cancelled")
    except RetryLater as later:
        return Deferred(reason=later.reason, delay_sec=later.delay_sec)
    except BaseException as error:  # SystemExit, too: it ends the thread that it is raised in, and not the worker
        if token.told:
            return Stopped()
        reason, facts = describe_exception(error)
        return Failed(reason=reason, data=facts)
    if token.told:
        return Stopped()
    detail: str
    data: Mapping[str, Any]
    detail, data = work.result
    if isinstance(result, str):
        detail = result
    elif isinstance(result, Mapping):
        data = result
    problem = why_unpublishable(EventKind.COMPLETED, detail, data)
    if problem is not None:
        return Failed(reason=f"the handler's result cannot be published: {problem}")
    return Succeeded(detail=detail, data=data)
