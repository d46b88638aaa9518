"""The thread that waits for changes: it goes on after each of them, and ends when it is told to."""

from __future__ import annotations

from typing import Any, cast

from jobdb.system.interrupt_safe_flag import Flag
from jobdb.work.watcher import Watcher
from tests.support.waiting import wait_until


class ChangingStore:
    """A store that changes all the time, and sets the flag of the waiter as PostgreSQL's listener does."""

    def __init__(self) -> None:
        self.version = 0

    def data_version(self) -> int:
        return self.version

    def wait_for_change(self, seen: int, _timeout_sec: float, *, wake: Flag) -> int:
        assert seen == self.version
        self.version += 1
        wake.set()
        return self.version


class QuietStore(ChangingStore):
    """A store that never changes."""

    def wait_for_change(self, _seen: int, timeout_sec: float, *, wake: Flag) -> int:
        wake.wait(timeout_sec * 1000)
        return self.version


class Changes:
    def __init__(self) -> None:
        self.count = 0

    def note_change(self) -> None:
        self.count += 1


def test_a_notification_does_not_end_the_watching() -> None:
    changes = Changes()
    watcher = Watcher(cast("Any", ChangingStore()), cast("Any", changes))
    watcher.start()
    wait_until(lambda: changes.count >= 5)
    watcher.stop()


def test_a_watcher_of_a_quiet_database_ends_at_once() -> None:
    watcher = Watcher(cast("Any", QuietStore()), cast("Any", Changes()))
    watcher.start()
    watcher.stop()  # it would wait for a quarter of an hour
