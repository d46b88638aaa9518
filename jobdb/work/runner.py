"""The seam between the dispatcher and what runs the jobs: threads, processes, or commands under keepers.

Implemented by ``thread_runner.py``, ``process_runner.py`` and ``command_runner.py``; called by the dispatcher, in its
thread. No method blocks for long: a runner reports through the mailbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..core.publishable import why_unpublishable
from ..errors import InvalidInput
from ..model import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Claim, NewEvent
    from ..registry import Registry
    from .mailbox import Mailbox
    from .outcomes import Stop
    from .slots import Key

MOST_UNWRITTEN = 1000
"""The number of events of one attempt that may wait to be recorded before it has to wait, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerContext:
    """The worker, as its runner knows it.

    Attributes:
        mailbox: where it reports.
        registry: the registry, for reading.
        concurrency: how many attempts may run at a time.
        registry_id: the id of the registry, 32 hex digits.
        url: the database's absolute URL without a password.
        worker: the worker's name.
        worker_id: the worker's id.
        clock: seconds, by a clock that runs during a suspension.
    """

    mailbox: Mailbox
    registry: Registry
    concurrency: int
    registry_id: str
    url: str
    worker: str
    worker_id: str
    clock: Callable[[], float]


class RunnerUnusable(Exception):
    """Raised when a runner can start nothing.

    Args:
        message: why, in a sentence.
        exit_code: the exit code for ``jobdb work``: 127 if the command is missing, 126 if it cannot be executed.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@runtime_checkable
class Runner(Protocol):
    """Runs attempts.

    Attributes:
        log_dir: the folder with a log file per attempt; None if there are none.
        patience_sec: how long after being stopped at once an attempt may take to end before it is given up.
    """

    log_dir: str | None
    patience_sec: float

    def check(self) -> None:
        """Check that attempts can be started; called before the first claim.

        Raises:
            RunnerUnusable: they cannot.
        """
        ...

    def open(self, context: RunnerContext) -> None:
        """Begin: start threads and processes."""
        ...

    def start(self, claim: Claim, deadline: float) -> None:
        """Start an attempt, which may run until ``deadline`` unless that is extended; `Finished` ends it."""
        ...

    def extend(self, key: Key, deadline: float) -> None:
        """Extend an attempt's deadline."""
        ...

    def stop(self, key: Key, stop: Stop) -> None:
        """Stop an attempt; called again with ``at_once`` if it has no more time."""
        ...

    def recorded(self, key: Key, count: int) -> None:
        """Note that ``count`` events of an attempt were recorded: as many more may come."""
        ...

    def close(self) -> None:
        """End: nothing of any attempt runs afterwards, as far as the runner can see to that."""
        ...


def require_publishable(event: NewEvent) -> None:
    """Refuse an event that could not be published later.

    Raises:
        InvalidInput: it could not.
    """
    problem = why_unpublishable(EventKind(event.event), event.detail, event.data)
    if problem is not None:
        raise InvalidInput(problem)
