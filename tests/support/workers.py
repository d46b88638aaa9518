"""A worker that runs in a thread of the test, with the transitions that it reports."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from jobdb import Registry
from jobdb.work import Worker, WorkerSummary
from jobdb.work.host import process_start
from jobdb.work.transitions import Transition
from tests.support.waiting import TIMEOUT_SEC, wait_until

_Kind = TypeVar("_Kind", bound=Transition)


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    return bool(process_start(pid))


class BackgroundWorker:
    """A worker that runs in a thread.

    Args:
        registry: an open registry.
        handler: the handler or runner.
        options: the other arguments of `Worker`.

    Attributes:
        worker: the worker.
        transitions: what it has reported, in order.
        error: what `Worker.run` raised.
        summary: what it returned.
    """

    def __init__(self, registry: Registry, handler: Any, **options: Any) -> None:
        self.transitions: list[Transition] = []
        self.error: BaseException | None = None
        self.summary: WorkerSummary | None = None
        options.setdefault("reap", False)
        self.worker = Worker(registry, handler, on_event=self.transitions.append, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.summary = self.worker.run()
        except BaseException as error:
            self.error = error

    def of(self, kind: type[_Kind]) -> list[_Kind]:
        """Return the transitions of one kind so far."""
        return [each for each in list(self.transitions) if isinstance(each, kind)]

    def wait_for(self, kind: type[_Kind], count: int = 1) -> _Kind:
        """Wait until there are ``count`` transitions of a kind; return the last of these."""
        wait_until(lambda: self.error or len(self.of(kind)) >= count)
        assert self.error is None, self.error
        return self.of(kind)[count - 1]

    def join(self) -> WorkerSummary:
        """Wait until the worker has ended by itself; return what it did."""
        self._thread.join(TIMEOUT_SEC)
        assert not self._thread.is_alive(), "the worker has not ended"
        if self.error is not None:
            raise self.error
        assert self.summary is not None
        return self.summary

    def drain(self) -> WorkerSummary:
        """Drain the worker, and wait until it has ended."""
        self.worker.drain()
        return self.join()

    def stop_and_join(self) -> None:
        """Stop the worker, and wait until it has ended, whether or not with an error."""
        self.worker.stop()
        self._thread.join(TIMEOUT_SEC)
        assert not self._thread.is_alive(), "the worker has not ended"
