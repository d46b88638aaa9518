"""The engine: all verbs over one store, for SQLite and PostgreSQL alike.

Each verb is one transaction. A verb that writes is durable when it returns. Arguments have been checked by the caller;
times and durations are in milliseconds. Verbs raise the errors of :mod:`jobdb.errors`, never those of a driver. One
test suite, ``tests/conformance``, runs every verb on every engine. Called by the registry and the packages above it.
"""

from __future__ import annotations

from .accept import AcceptVerbs
from .claims import ClaimVerbs
from .events import EventVerbs
from .jobs import JobVerbs
from .leases import LeaseVerbs
from .outbox import OutboxVerbs
from .questions import QuestionVerbs
from .subscriptions import SubscriptionVerbs
from .tokens import TokenVerbs
from .workers import WorkerVerbs


class Engine(
    JobVerbs,
    ClaimVerbs,
    WorkerVerbs,
    QuestionVerbs,
    LeaseVerbs,
    EventVerbs,
    OutboxVerbs,
    AcceptVerbs,
    SubscriptionVerbs,
    TokenVerbs,
):
    """All verbs over one store.

    Args:
        store: the open database.
        vault: seals and unseals tokens and broker passwords.
    """

    def close(self, *, checkpoint: bool = True) -> None:
        """Close the database; with ``checkpoint`` the last process to close a SQLite database leaves a single file."""
        self.store.close(checkpoint=checkpoint)
