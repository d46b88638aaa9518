"""The master keys and tokens of the tests. Nothing here is secret."""

from __future__ import annotations

from typing import Final

from jobdb.crypto.master_key import MasterKey
from jobdb.crypto.vault import Vault

MASTER_KEY: Final = "11" * 32
"""The key of every test, as JOBDB_KEY holds it; the fixture `clean_environment` sets it."""
OTHER_MASTER_KEY: Final = "22" * 32
THIRD_MASTER_KEY: Final = "33" * 32
TOKEN: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


def vault(key: str = MASTER_KEY) -> Vault:
    """Return a vault under ``key``, given as hexadecimal digits."""
    return Vault(MasterKey(bytes.fromhex(key), "the tests"))
