"""Sealing within a transaction: every secret of one database is under one master key, and the database knows which.

Two hosts with a key file each, or a process that missed a rekey, would otherwise seal tokens that the others cannot
open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import KeyProblem

if TYPE_CHECKING:
    from ...vault import Vault
    from .transaction import Transaction

KEY_ID = "key_id"


def seal(tx: Transaction, vault: Vault, secret: str, *, bound_to: str) -> bytes:
    """Seals a secret for a row of this database.

    Raises:
        KeyProblem: the database's secrets are under another master key.
    """
    known = tx.one("sealing_key", name=KEY_ID)
    if known is None:
        tx.run("keep_setting", name=KEY_ID, value=vault.key_id)
        known = tx.one("sealing_key", name=KEY_ID)
        assert known is not None
    if known[0] != vault.key_id:
        raise KeyProblem(
            f"this database's secrets are sealed under master key {known[0]}, and the key found here "
            f"({vault.master.source}) is {vault.key_id}; give this process the database's key "
            "(JOBDB_KEY or JOBDB_KEY_FILE)"
        )
    return vault.seal(secret, bound_to=bound_to)
