"""The sealing of secrets in a transaction, which ensures that one master key seals all secrets of a database.

Called by the verbs that store or read secrets, by the import, and when a database is created. Calls the vault; runs
statements only in its caller's transaction.

The database records the key's id. Otherwise two hosts with different key files, or a process that missed a rekey, would
seal tokens that others cannot unseal. A secret is bound to its row: it can be unsealed in no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import KeyProblem
from .statements import JOBS, TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...crypto.vault import Vault
    from ..store import Transaction

KEY_ID = "key_id"


class Sealer:
    """The sealing of secrets in one transaction; the database's key is checked once.

    Args:
        tx: the transaction.
        vault: holds the master key.

    Attributes:
        vault: the same.
    """

    def __init__(self, tx: Transaction, vault: Vault) -> None:
        self._tx = tx
        self.vault = vault
        self._checked = False

    def seal(self, secret: str, *, bound_to: str) -> bytes:
        """Seal a secret.

        Raises:
            KeyProblem: the database's secrets are sealed under another master key, or there is no key.
        """
        self.check()
        return self.vault.seal(secret, bound_to=bound_to)

    def seal_many(self, secrets: Sequence[tuple[str, str]]) -> list[bytes]:
        """Seal secrets, each given with its binding; raises as `seal` does."""
        if not secrets:
            return []
        self.check()
        return self.vault.seal_many(secrets)

    def check(self) -> None:
        """Check that the vault's key is the database's; raises as `seal` does."""
        if self._checked:
            return
        known = self._tx.one(TOKENS.sealing_key, name=KEY_ID)
        if known is None:
            # Only now may a key be created: where secrets are already sealed, a new key could unseal none of them.
            self._tx.run(JOBS.insert_setting, name=KEY_ID, value=self.vault.key_for_first_secret().key_id)
            known = self._tx.one(TOKENS.sealing_key, name=KEY_ID)
            assert known is not None
        if known[0] != self.vault.key_id:
            raise KeyProblem(
                f"this database's secrets are sealed under master key {known[0]}, and the key found here "
                f"({self.vault.master.source}) is {self.vault.key_id}; give this process the database's key "
                "(JOBDB_KEY or JOBDB_KEY_FILE)"
            )
        self._checked = True


def seal(tx: Transaction, vault: Vault, secret: str, *, bound_to: str) -> bytes:
    """Seal one secret for a row of this database; raises as :meth:`Sealer.seal` does."""
    return Sealer(tx, vault).seal(secret, bound_to=bound_to)


def token_binding(job_id: str, kid: int) -> str:
    """Return the binding of a sealed token: its job and version."""
    return f"token {kid} of {job_id}"


def password_binding(job_id: str) -> str:
    """Return the binding of a sealed broker password: its job."""
    return f"broker password of {job_id}"
