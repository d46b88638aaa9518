"""The base class of the groups of verbs: their store and vault, and the process's caches for jobs and tokens.

Used by the modules of verbs in this package, each of which derives its class from it. Calls neither store nor vault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .presign import PresignCache
from .token_reuse import TokenReuseGuard

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ..store import Store


class VerbGroup:
    """The base class of the groups that make up the engine.

    Args:
        store: the open database.
        vault: seals and unseals tokens and broker passwords.

    Attributes:
        store: the same.
        vault: the same; replaced by :meth:`.TokenVerbs.rekey`.
        presign_cache: the last known states of the jobs that this process publishes to.
        reuse_guard: recognizes tokens that were used before.
    """

    def __init__(self, store: Store, vault: Vault) -> None:
        self.store = store
        self.vault = vault
        self.presign_cache = PresignCache()
        self.reuse_guard = TokenReuseGuard()
