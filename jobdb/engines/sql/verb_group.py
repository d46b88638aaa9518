"""The base of the groups of verbs: their store and vault, and what the process remembers of jobs and tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .presign import PresignCache
from .token_reuse import TokenReuseGuard

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ..store import Store


class VerbGroup:
    """Base of the groups that make up the engine.

    Args:
        store: the open database.
        vault: seals and unseals tokens and broker passwords.

    Attributes:
        store: the same.
        vault: the same; another one after :meth:`.TokenVerbs.rekey`.
        presign_cache: the states of the jobs that this process publishes to.
        reuse_guard: recognizes tokens that were given or generated before.
    """

    def __init__(self, store: Store, vault: Vault) -> None:
        self.store = store
        self.vault = vault
        self.presign_cache = PresignCache()
        self.reuse_guard = TokenReuseGuard()
