"""The process that calls a handler for one attempt after the other, in its main thread.

Started by the process runner, in a session of its own, so that its process group can be killed with all that the
handler has started in it. A second thread listens to the runner. It ends the group when the deadline passes without
having been extended, or the runner is gone: then nobody holds the claim.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from ..registry.cancellation import CancellationToken
from ..registry.working import Work
from ..system.boot_clock import boottime
from ..system.isolated_starts import restore_safe_path
from .handlers import call_handler
from .runner import MOST_UNWRITTEN, require_publishable

if TYPE_CHECKING:
    from ..model import Claim, NewEvent
    from .handlers import Handler

_BACK_PRESSURE_SEC = 0.005
_LONGEST_WAIT_SEC = 3600.0


class ProcessChild:
    """The child's state.

    Args:
        handler: does a job.
        connection: to the runner. It sends ("run", claim, deadline), ("extend", deadline), ("stop", reason, lost),
            ("recorded", count) and ("end",), and gets ("heard", event) and ("finished", report).
    """

    def __init__(self, handler: Handler, connection: Connection[Any, Any]) -> None:
        self._handler = handler
        self._connection = connection
        self._sending = threading.Lock()
        self._claims: queue.SimpleQueue[tuple[Claim, CancellationToken] | None] = queue.SimpleQueue()
        self._token: CancellationToken | None = None
        self._deadline = float("inf")
        self._sent = self._recorded = 0

    def run(self) -> None:
        """Call the handler for each attempt until there is no more."""
        threading.Thread(target=self._listen, name="jobdb-listener", daemon=True).start()
        while (found := self._claims.get()) is not None:
            claim, token = found
            report = call_handler(self._handler, Work(claim, token, self._publish), token)
            self._deadline = float("inf")
            self._send("finished", report)

    def _listen(self) -> None:
        try:
            while True:
                left = self._deadline - boottime()
                if left <= 0:
                    kill_own_group()
                if self._connection.poll(min(left, _LONGEST_WAIT_SEC)):
                    self._obey(*self._connection.recv())
        except (EOFError, OSError):
            kill_own_group()

    def _obey(self, what: str, *values: Any) -> None:
        token = self._token
        if what == "run":
            claim, self._deadline = values
            self._token = CancellationToken(self._deadline)
            self._sent = self._recorded = 0
            self._claims.put((claim, self._token))
        elif what == "extend" and token is not None:
            (deadline,) = values
            token.extend(deadline)
            self._deadline = deadline if self._deadline < float("inf") else self._deadline
        elif what == "stop" and token is not None:
            reason, lost = values
            token.cancel(reason, lost=lost)
        elif what == "recorded":
            self._recorded += values[0]
        elif what == "end":
            self._claims.put(None)

    def _publish(self, event: NewEvent) -> None:
        require_publishable(event)
        token = self._token
        assert token is not None
        while self._sent - self._recorded >= MOST_UNWRITTEN:
            token.raise_if_cancelled()
            time.sleep(_BACK_PRESSURE_SEC)
        self._sent += 1
        self._send("heard", event)

    def _send(self, what: str, value: object) -> None:
        with self._sending:
            self._connection.send((what, value))


def run_child(handler: Handler, connection: Connection[Any, Any], safe_path: str | None) -> None:
    """Run the child: the target of the process, which was started with another ``PYTHONSAFEPATH``."""
    restore_safe_path(safe_path)
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    connection.send(("ready", os.getpid()))
    ProcessChild(handler, connection).run()


def kill_own_group() -> None:
    """Kill this process and everything in its process group."""
    os.killpg(0, signal.SIGKILL)
