"""What a kind of database declares about itself: what it can do, and how far the order of its events is final.

Made by the stores, and asked by the verbs and tools through :class:`jobdb.engines.store.Store`. Apart from the store's
protocols, which nothing needs at run time: an agent runs the command line once per event.
"""

from __future__ import annotations

from typing import NamedTuple


class Traits(NamedTuple):
    """What a kind of database can do.

    Attributes:
        presigns: an event may be signed before its transaction begins, by the clock of this process; otherwise the
            time comes from a server, and is known in the transaction only.
        stores_nul: text may contain the character NUL.
    """

    presigns: bool
    stores_nul: bool


class StableEvents(NamedTuple):
    """Up to where the order of the events is final.

    Attributes:
        event_id: no event up to this id (events.id) can appear any more that a transaction begun now would not see.
            Where writers run side by side, an event can become visible after one with a higher id.
        recheck_sec: look again after so many seconds, although nothing may announce it: an event with a higher id waits
            for a transaction that may be rolled back. Infinite when nothing waits.
    """

    event_id: int
    recheck_sec: float
