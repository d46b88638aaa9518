"""The declarations of a store about its kind of database: its capabilities.

Created by the stores; read by the verbs and tools through :class:`jobdb.engines.store.Store`. Kept apart from the
protocols, which are not needed at run time: an agent runs the command line once per event, so imports count.
"""

from __future__ import annotations

from typing import NamedTuple


class Traits(NamedTuple):
    """The capabilities of a kind of database.

    Attributes:
        presigns: an event may be signed before its transaction begins, by the clock of this process. Otherwise the
            time comes from a server and is known only within the transaction.
        stores_nul: text may contain the character NUL.
    """

    presigns: bool
    stores_nul: bool
