"""The vault: secrets sealed with AES-256-GCM under the master key, each bound to the row that holds it.

Called by the registry and the engines for tokens and broker passwords; calls ``master_key``, and ``cryptography`` only
when something is sealed or unsealed. A sealed secret is

    version (1 byte) | key id (8 bytes) | nonce (12 random bytes) | ciphertext | tag (16 bytes)

and its associated data are the name of its row and the first nine bytes (the header), so that it can be unsealed for no
other row.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from ..errors import InvalidInput, KeyProblem
from .master_key import MasterKey, find_master_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_VERSION = 1
_HEADER_BYTES = 9
_NONCE_BYTES = 12
_TAG_BYTES = 16
_CIPHERTEXT_OFFSET = _HEADER_BYTES + _NONCE_BYTES
"""The offset of the ciphertext."""

_MIN_BYTES = _CIPHERTEXT_OFFSET + _TAG_BYTES


class _SealingKey:
    """A master key with its cipher and the header of every secret that is sealed under it."""

    __slots__ = ("_decrypt", "_encrypt", "_header", "_invalid_tag", "master")

    def __init__(self, master: MasterKey) -> None:
        # Imported here because commands that touch no secret must start without it.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        cipher = AESGCM(master.secret)
        self.master = master
        self._encrypt = cipher.encrypt
        self._decrypt = cipher.decrypt
        self._invalid_tag = InvalidTag
        self._header = bytes((_VERSION,)) + bytes.fromhex(master.key_id)

    def seal(self, plain: bytes, bound_to: str, nonce: bytes) -> bytes:
        """Return the sealed form of the plain bytes; a nonce must never be used twice."""
        header = self._header
        return header + nonce + self._encrypt(nonce, plain, bound_to.encode() + header)

    def unseal(self, sealed: bytes, bound_to: str) -> bytes | None:
        """Return the plain bytes; None if they were not sealed under this key, in this format and for this row."""
        header = self._header
        if len(sealed) < _MIN_BYTES or sealed[:_HEADER_BYTES] != header:
            return None
        try:
            return self._decrypt(
                sealed[_HEADER_BYTES:_CIPHERTEXT_OFFSET], sealed[_CIPHERTEXT_OFFSET:], bound_to.encode() + header
            )
        except self._invalid_tag:  # not chained: no error, not even a chained one, may contain a secret
            return None


class Vault:
    """A vault that seals and unseals secrets under one master key. Safe to share between threads.

    With random nonces a key should seal no more than 2**32 secrets (NIST SP 800-38D, section 8.3).
    """

    def __init__(
        self,
        master: MasterKey | Callable[[], MasterKey],
        *,
        make: Callable[[], MasterKey] | None = None,
        cached: int = 4096,
    ) -> None:
        """Create a vault under a given key, or under one that is looked up when it is first needed.

        Args:
            master: the key, or the function that finds it.
            make: the function that finds or creates the key, for a first secret; None if no key may be created.
            cached: the number of unsealed secrets to keep in memory; the least recently used are dropped first.
        """
        self._key_source = master
        self._create_key = make
        self._loaded_key: _SealingKey | None = None
        self._cache_size = cached
        self._cache: OrderedDict[tuple[bytes, str], str] = OrderedDict()
        self._lock = threading.RLock()

    @classmethod
    def open(cls, create: bool = True, *, env: Mapping[str, str] | None = None) -> Vault:
        """Return a vault that looks up its master key when it first needs it, and not before.

        Args:
            create: create a key in the user's configuration folder for a first secret, if there is none anywhere. No
                key is created to unseal a secret: it would not be the right one.
            env: the environment to read; None for the process's own.

        Example:
            vault = Vault.open()
            sealed = vault.seal("secret", bound_to="token job1 1")
            assert vault.unseal(sealed, bound_to="token job1 1") == "secret"
        """
        return cls(
            lambda: find_master_key(create=False, env=env),
            make=(lambda: find_master_key(create=True, env=env)) if create else None,
        )

    @property
    def master(self) -> MasterKey:
        """The master key, looked up now if it was not needed before; none is created.

        Raises:
            KeyProblem: there is none, or the one that is named cannot be used.
        """
        return self._load_key().master

    @property
    def key_id(self) -> str:
        """The master key's id, 16 hex digits.

        Raises:
            KeyProblem: as for `master`.
        """
        return self.master.key_id

    def key_for_first_secret(self) -> MasterKey:
        """Return the master key for a database without sealed secrets; create it if there is none and that is allowed.

        Raises:
            KeyProblem: there is none, or the one that is named cannot be used.
        """
        return self._load_key(create=True).master

    def has_key(self, key_id: str) -> bool:
        """Return whether the current key has this id; never create one, never raise."""
        try:
            return self.key_id == key_id
        except KeyProblem:
            return False

    def seal(self, secret: str, *, bound_to: str) -> bytes:
        """Encrypt a secret for one row; the key is created now if there is none and that is allowed.

        Args:
            secret: any text.
            bound_to: the name of the row, which must be the same for unsealing.

        Returns:
            The sealed secret, 37 bytes longer than the secret.

        Raises:
            InvalidInput: the secret contains lone surrogates, which cannot be encoded.
            KeyProblem: there is no master key.
        """
        plain = _encode(secret, bound_to)
        return self._load_key(create=True).seal(plain, bound_to, os.urandom(_NONCE_BYTES))

    def seal_many(self, secrets: Sequence[tuple[str, str]]) -> list[bytes]:
        """Encrypt many secrets.

        Args:
            secrets: each secret with the name of its row.

        Returns:
            The sealed secrets, in the same order.

        Raises:
            InvalidInput, KeyProblem: as for `seal`.
        """
        seal = self._load_key(create=True).seal
        # All nonces in one call: a request to the system for twelve bytes costs as much as sealing a token.
        nonces = os.urandom(_NONCE_BYTES * len(secrets))
        return [
            seal(_encode(secret, bound_to), bound_to, nonces[start : start + _NONCE_BYTES])
            for start, (secret, bound_to) in zip(range(0, len(nonces), _NONCE_BYTES), secrets, strict=True)
        ]

    def unseal_many(self, sealed: Sequence[tuple[bytes, str]]) -> list[str]:
        """Decrypt many secrets without caching them, since they are not needed again soon.

        Args:
            sealed: each sealed secret with the name of its row.

        Returns:
            The secrets, in the same order.

        Raises:
            KeyProblem: as for `unseal`.
        """
        unseal = self._load_key().unseal
        secrets = []
        for each, bound_to in sealed:
            plain = unseal(each, bound_to)
            secrets.append(plain.decode("utf-8") if plain is not None else self._unseal_uncached(each, bound_to))
        return secrets

    def unseal(self, sealed: bytes, *, bound_to: str) -> str:
        """Decrypt a secret that `seal` encrypted for the same row under the same master key.

        Raises:
            KeyProblem: there is no master key, it is a different one, or the sealed bytes were changed or come from
                another row.
        """
        name = (sealed, bound_to)
        with self._lock:
            secret = self._cache.get(name)
            if secret is not None:
                self._cache.move_to_end(name)
                return secret
        secret = self._unseal_uncached(sealed, bound_to)
        with self._lock:
            self._cache[name] = secret
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return secret

    def reseal(self, sealed: bytes, *, bound_to: str, to: Vault) -> bytes:
        """Seal a sealed secret again for the same row, under another vault's key.

        Raises:
            KeyProblem: as for `unseal`, and as for `seal` of the other vault.
        """
        return to.seal(self._unseal_uncached(sealed, bound_to), bound_to=bound_to)

    def forget(self) -> None:
        """Drop every unsealed secret from memory, as a revocation requires."""
        with self._lock:
            self._cache.clear()

    def __repr__(self) -> str:
        if self._loaded_key is None:
            return "<Vault: master key not looked up yet>"
        master = self._loaded_key.master
        return f"<Vault: master key {master.key_id} from {master.source}>"

    def _load_key(self, *, create: bool = False) -> _SealingKey:
        key = self._loaded_key
        if key is None:
            with self._lock:
                key = self._loaded_key
                if key is None:
                    find = self._create_key if create and self._create_key is not None else self._key_source
                    master = find if isinstance(find, MasterKey) else find()
                    key = self._loaded_key = _SealingKey(master)
        return key

    def _unseal_uncached(self, sealed: bytes, bound_to: str) -> str:
        """Decrypt one secret; raise KeyProblem with the exact reason if that is not possible."""
        if len(sealed) < _MIN_BYTES:
            raise KeyProblem(
                f"the secret of {bound_to} is truncated ({len(sealed)} bytes); restore the database from a backup"
            )
        if sealed[0] != _VERSION:
            raise KeyProblem(
                f"the secret of {bound_to} is sealed in format {sealed[0]}, and this jobdb knows format "
                f"{_VERSION}: a newer jobdb wrote it, or it is damaged; upgrade jobdb, or restore a backup"
            )
        key = self._load_key()
        key_id = sealed[1:_HEADER_BYTES].hex()
        if key_id != key.master.key_id:
            raise KeyProblem(
                f"the secret of {bound_to} is sealed under master key {key_id}, and the current key is "
                f"{key.master.key_id}, from {key.master.source}; give the other key (JOBDB_KEY_FILE names a file "
                "that holds it)"
            )
        plain = key.unseal(sealed, bound_to)
        if plain is None:
            raise KeyProblem(
                f"the secret of {bound_to} cannot be unsealed with master key {key_id}, which sealed it: it was "
                "changed, or moved there from another row; restore the database from a backup, or rotate the "
                "token"
            )
        return plain.decode("utf-8")


def _encode(secret: str, bound_to: str) -> bytes:
    """Encode a secret; the codec's error, which contains the secret, is not even the context of ours."""
    try:
        return secret.encode("utf-8")
    except UnicodeEncodeError:
        pass
    raise InvalidInput(f"the secret for {bound_to} is not valid Unicode text; give it as UTF-8")
