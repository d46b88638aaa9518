"""The answer of a store to how far the order of its events is final.

Created by the stores; read by subscribers of all jobs. Kept apart from the traits, since publishing does not need it.
"""

from __future__ import annotations

from typing import NamedTuple


class StableEvents(NamedTuple):
    """The position up to which the order of the events is final.

    Attributes:
        event_id: a transaction begun now sees every event up to this id (events.id); none can appear later. With
            concurrent writers, an event can become visible after one with a higher id.
        recheck_sec: check again after so many seconds even without a notification: an event with a higher id waits for
            a transaction that may be rolled back. Infinite if nothing waits.
    """

    event_id: int
    recheck_sec: float
