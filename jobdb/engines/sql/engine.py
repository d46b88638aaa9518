"""The verbs put together over a store: what stands behind the registry for SQLite and PostgreSQL alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .accept import AcceptVerbs
from .claims import ClaimVerbs
from .events import EventVerbs
from .jobs import JobVerbs
from .presign import PresignCache
from .subscriptions import SubscriptionVerbs
from .token_reuse import TokenReuseGuard
from .tokens import TokenVerbs

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ..store import Store


class SqlEngine(JobVerbs, ClaimVerbs, EventVerbs, AcceptVerbs, SubscriptionVerbs, TokenVerbs):
    """All verbs over one store.

    Args:
        store: the open database.
        vault: seals and unseals tokens and broker passwords.
    """

    def __init__(self, store: Store, vault: Vault) -> None:
        self.store = store
        self.vault = vault
        self.presign_cache = PresignCache()
        self.reuse_guard = TokenReuseGuard()

    def close(self, *, checkpoint: bool = True) -> None:
        """Closes the database."""
        self.store.close(checkpoint=checkpoint)
