"""Threads that run side by side to their end, and the exceptions that they raise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

TIMEOUT_SEC = 60.0


def run_in_threads(calls: Iterable[Callable[[], object]], *, timeout_sec: float = TIMEOUT_SEC) -> list[BaseException]:
    """Run each call in a separate thread; return the exceptions raised, in the order in which the threads ended.

    Raises:
        AssertionError: a thread has not ended within ``timeout_sec``.
    """
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_sec)
        assert not thread.is_alive(), f"a thread has not ended within {timeout_sec} s"
    return errors
