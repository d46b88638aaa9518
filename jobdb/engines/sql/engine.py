"""The engine: the verbs put together over a store. It stands behind the registry for SQLite and PostgreSQL alike.

One verb, one sentence, one transaction. A verb that writes is durable when it returns. Arguments are checked already;
times and durations are milliseconds. Verbs raise the errors of :mod:`jobdb.errors` and nothing of a driver's. One
suite, ``tests/conformance``, runs every verb on every engine. Called by the registry and the tools beside it.
"""

from __future__ import annotations

from .accept import AcceptVerbs
from .claims import ClaimVerbs
from .events import EventVerbs
from .jobs import JobVerbs
from .leases import LeaseVerbs
from .outbox import OutboxVerbs
from .subscriptions import SubscriptionVerbs
from .tokens import TokenVerbs


class Engine(JobVerbs, ClaimVerbs, LeaseVerbs, EventVerbs, OutboxVerbs, AcceptVerbs, SubscriptionVerbs, TokenVerbs):
    """All verbs over one store.

    Args:
        store: the open database.
        vault: seals and unseals tokens and broker passwords.
    """

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the database; with ``checkpoint`` the last process out leaves one file, where that applies."""
        self.store.close(checkpoint=checkpoint)
