"""The runner that calls a handler in threads of the worker's process.

Created by ``Worker``; called by the dispatcher. A thread cannot be stopped from outside: its handler is asked, through
its ``Work``, and a handler that does not ask back keeps its slot.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ..registry.cancellation import CancellationToken
from ..registry.working import Work
from .handlers import call_handler
from .mailbox import Finished, Heard, Running
from .runner import MOST_UNWRITTEN, RunnerContext, require_publishable

if TYPE_CHECKING:
    from ..model import Claim, NewEvent
    from .handlers import Handler
    from .outcomes import Stop
    from .slots import Key

PATIENCE_SEC = 10.0
_BACK_PRESSURE_SEC = 0.005


class _Attempt:
    """One attempt in a thread, or waiting for one."""

    def __init__(self, claim: Claim, token: CancellationToken) -> None:
        self.claim = claim
        self.token = token
        self.key: Key = (claim.job_id, claim.attempt)
        self.sent = 0  # only its own thread counts up
        self.recorded = 0  # only the dispatcher's thread counts up


class ThreadRunner:
    """Calls a handler in as many threads as the worker has slots.

    Args:
        handler: does a job.
        patience_sec: how long a handler may take to notice that it must stop when the worker ends, in seconds.
    """

    log_dir: str | None = None

    def __init__(self, handler: Handler, *, patience_sec: float = PATIENCE_SEC) -> None:
        self._handler = handler
        self.patience_sec = patience_sec
        self._attempts: dict[Key, _Attempt] = {}
        self._queue: SimpleQueue[_Attempt | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._context: RunnerContext | None = None

    def check(self) -> None:
        """Check nothing: a handler can always be called."""

    def open(self, context: RunnerContext) -> None:
        """Begin; threads are started when they are first needed."""
        self._context = context

    def start(self, claim: Claim, deadline: float) -> None:
        """Hand an attempt to a thread."""
        assert self._context is not None
        attempt = _Attempt(claim, CancellationToken(deadline, clock=self._context.clock))
        self._attempts[attempt.key] = attempt
        if len(self._threads) < min(len(self._attempts), self._context.concurrency):
            thread = threading.Thread(
                target=self._work, args=(self._context,), name=f"jobdb-slot-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._queue.put(attempt)

    def extend(self, key: Key, deadline: float) -> None:
        """Extend an attempt's deadline."""
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.token.extend(deadline)

    def stop(self, key: Key, stop: Stop) -> None:
        """Ask an attempt to stop."""
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.token.cancel(stop.reason, lost=stop.cause.ends_renewal)

    def recorded(self, key: Key, count: int) -> None:
        """Let an attempt publish more."""
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.recorded += count

    def close(self) -> None:
        """End the threads; one whose handler does not return is left to itself."""
        for attempt in list(self._attempts.values()):
            attempt.token.cancel("the worker has ended", lost=True)
        for _ in self._threads:
            self._queue.put(None)

    def _work(self, context: RunnerContext) -> None:
        """Run attempts until there is no more: the body of each thread."""
        mailbox = context.mailbox
        while (attempt := self._queue.get()) is not None:
            mailbox.post(Running(attempt.key, None))
            work = Work(attempt.claim, attempt.token, partial(self._publish, attempt))
            report = call_handler(self._handler, work, attempt.token)
            del self._attempts[attempt.key]
            mailbox.post(Finished(attempt.key, report))

    def _publish(self, attempt: _Attempt, event: NewEvent) -> None:
        """Queue an event; wait while too many are queued already."""
        assert self._context is not None
        require_publishable(event)
        while attempt.sent - attempt.recorded >= MOST_UNWRITTEN:
            attempt.token.raise_if_cancelled()
            time.sleep(_BACK_PRESSURE_SEC)
        attempt.sent += 1
        self._context.mailbox.post(Heard(attempt.key, event))
