"""The thread that waits for changes of the database and wakes the dispatcher.

Started by ``Worker.run``. Calls the store's ``wait_for_change``, and no verb.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..errors import JobdbError
from ..system.interrupt_safe_flag import Flag

if TYPE_CHECKING:
    from ..engines.store import Store
    from .mailbox import Mailbox

_WAIT_SEC = 1.0
"""The longest single wait, so that the thread ends soon after `Watcher.stop`."""
_LEAST_GAP_SEC = 0.004
"""The pause after a change: where others commit all the time, the dispatcher is not woken for each commit."""
_RETRY_SEC = 0.5


class Watcher:
    """Wakes a mailbox whenever the database has changed.

    Args:
        store: the open database.
        mailbox: the dispatcher's.
    """

    def __init__(self, store: Store, mailbox: Mailbox) -> None:
        self._store = store
        self._mailbox = mailbox
        self._wake = Flag()  # set by the store, too, when it hears of a change
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="jobdb-watcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started; return once it has ended."""
        self._is_stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        seen: int | None = None
        while not self._is_stopping:
            try:
                before = self._store.data_version() if seen is None else seen
                version = self._store.wait_for_change(before, _WAIT_SEC, wake=self._wake)
            except JobdbError:
                # The dispatcher meets the error, too, and decides; without a watcher it asks now and then.
                self._wake.wait(_RETRY_SEC)
                continue
            self._wake.clear()  # before the next look at whether it is to stop
            if version != seen:
                seen = version
                self._mailbox.note_change()
                self._wake.wait(_LEAST_GAP_SEC)
