"""The relay's lease, which ensures that only one relay at a time delivers an outbox.

Used by the relay, in its thread; the outbox stores the lease.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import Busy

if TYPE_CHECKING:
    from .outbox import Outbox

_SAFE_SHARE = 0.8
"""The share of the lease after which nothing more is sent: it must be on the wire before another relay may begin."""


def holder_name() -> str:
    """Return a unique name for a lease holder: host, process and a random part."""
    return f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"


class RelayLease:
    """A relay's hold on the lease of its outbox.

    Args:
        outbox: stores the lease.
        lease_sec: how long the lease lasts unless renewed, in seconds.
        clock: monotonic seconds.
    """

    def __init__(self, outbox: Outbox, lease_sec: float, clock: Callable[[], float]) -> None:
        self._outbox = outbox
        self._lease_sec = lease_sec
        self._clock = clock
        self._holder = holder_name()
        self._may_send_until = 0.0
        self._renew_at = 0.0

    def may_send(self) -> bool:
        """Return whether the lease, as last renewed, lasts long enough to send."""
        return self._clock() < self._may_send_until

    def keep(self) -> bool:
        """Acquire the lease, or renew it after a third of its time; return whether we may send now."""
        now = self._clock()
        if now >= self._renew_at:
            try:
                held = self._outbox.acquire_lease(self._holder, round(self._lease_sec * 1000))
            except Busy:
                held = now < self._may_send_until
            else:
                # Counted from before the call.
                self._may_send_until = now + self._lease_sec * _SAFE_SHARE if held else 0.0
            if not held:
                return False
            self._renew_at = now + self._lease_sec / 3
        if self.may_send():
            return True
        self._renew_at = 0.0  # this process was suspended for longer than its lease
        return False

    def release(self) -> None:
        """Release the lease, if it is ours."""
        self._outbox.release_lease(self._holder)
