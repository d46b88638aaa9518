"""The arithmetic of a lease: when to renew it, and until when its holder may act.

Called by the worker and by ``Registry.working``, which hold leases. Pure: the caller reads the clock.

The database counts a lease from the moment of the transaction, the holder from before it asked, so that the holder's
end is never the later one, whatever the call took. The margin is the time in which the processes of a job are killed.
"""

from __future__ import annotations

LEAST_MARGIN_SEC = 0.1


def deadline(asked_at: float, lease_sec: float) -> float:
    """Return until when the holder of a lease may act, unless it renews it.

    Args:
        asked_at: when the claim or the renewal was sent, in seconds by a clock that runs during a suspension.
        lease_sec: the length of the lease, in seconds.

    Example:
        >>> deadline(asked_at=100.0, lease_sec=60)
        150.0
    """
    return asked_at + max(0.0, lease_sec - max(lease_sec / 6, LEAST_MARGIN_SEC))


def renewal_due(asked_at: float, lease_sec: float) -> float:
    """Return when a lease is to be renewed: after a third of it, so that two attempts may fail.

    Args:
        asked_at: when the claim or the last renewal was sent, in seconds.
        lease_sec: the length of the lease, in seconds.
    """
    return asked_at + lease_sec / 3
