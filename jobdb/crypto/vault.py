"""Sealing of secrets: AES-256-GCM, bound to the row that holds them, under the master key.

Called by the registry and the engines for tokens and broker passwords; calls the master key, and
``cryptography`` only when something is sealed or unsealed. A sealed secret is

    version (1 byte) | key id (8 bytes) | nonce (12 random bytes) | ciphertext | tag (16 bytes)

and its associated data are the name of its row and the first nine bytes, so that it opens in no other row.
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

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = 1
_HEADER_BYTES = 9
_NONCE_BYTES = 12
_TAG_BYTES = 16
_MIN_BYTES = _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES


class Vault:
    """Seals and unseals secrets under one master key. Safe to share between threads.

    With random nonces a key should seal no more than 2**32 secrets (NIST SP 800-38D, section 8.3).
    """

    def __init__(
        self,
        master: MasterKey | Callable[[], MasterKey],
        *,
        make: Callable[[], MasterKey] | None = None,
        cached: int = 4096,
    ) -> None:
        """A vault under a key that is at hand, or that is looked up when it is first needed.

        Args:
            master: the key, or what finds it.
            make: finds the key or makes it, for a first secret; None where none may be made.
            cached: how many unsealed secrets to keep in memory; the least recently used go first.
        """
        self._key_source = master
        self._create_key = make
        self._loaded_key: tuple[MasterKey, AESGCM] | None = None
        self._cache_size = cached
        self._cache: OrderedDict[tuple[bytes, str], str] = OrderedDict()
        self._lock = threading.RLock()

    @classmethod
    def open(cls, create: bool = True, *, env: Mapping[str, str] | None = None) -> Vault:
        """A vault that looks for its master key when it first needs it, and not before.

        Args:
            create: make a key in the user's configuration folder for a first secret, if there is none anywhere. For
                what is sealed already none is made: it would not be the right one.
            env: the environment to read, the process's own when None.
        """
        return cls(
            lambda: find_master_key(create=False, env=env),
            make=(lambda: find_master_key(create=True, env=env)) if create else None,
        )

    @property
    def master(self) -> MasterKey:
        """The master key, looked up now if it was not needed before; none is made.

        Raises:
            KeyProblem: there is none, or the one that is named cannot be used.
        """
        return self._key_and_cipher()[0]

    @property
    def key_id(self) -> str:
        """The master key's id, 16 hex digits; it raises as `master` does."""
        return self.master.key_id

    def key_for_first_secret(self) -> MasterKey:
        """The master key, made now if there is none and one may be made: for a database without sealed secrets.

        Raises:
            KeyProblem: there is none, or the one that is named cannot be used.
        """
        return self._key_and_cipher(make=True)[0]

    def has_key(self, key_id: str) -> bool:
        """Whether the key at hand is the one of that id; it makes none and never raises."""
        try:
            return self.key_id == key_id
        except KeyProblem:
            return False

    def seal(self, secret: str, *, bound_to: str) -> bytes:
        """Encrypt a secret for one row, under a key that is made now if there is none and one may be made.

        Args:
            secret: any text.
            bound_to: the name of the row, the same as when it will be unsealed.

        Raises:
            InvalidInput: the secret has lone surrogates, which no encoding carries.
            KeyProblem: there is no master key.
        """
        plain = _encoded(secret)
        if plain is None:
            raise _invalid_text(bound_to)
        master, cipher = self._key_and_cipher(make=True)
        header = bytes((_VERSION,)) + bytes.fromhex(master.key_id)
        nonce = os.urandom(_NONCE_BYTES)
        return header + nonce + cipher.encrypt(nonce, plain, bound_to.encode() + header)

    def seal_many(self, secrets: Sequence[tuple[str, str]]) -> list[bytes]:
        """Encrypts many secrets, each given with what it is bound to. It raises as `seal` does."""
        master, cipher = self._key_and_cipher(make=True)
        header = bytes((_VERSION,)) + bytes.fromhex(master.key_id)
        # The nonces in one piece: asking the system for twelve bytes costs as much as sealing a token.
        nonces = os.urandom(_NONCE_BYTES * len(secrets))
        sealed = []
        for number, (secret, bound_to) in enumerate(secrets):
            plain = _encoded(secret)
            if plain is None:
                raise _invalid_text(bound_to)
            nonce = nonces[number * _NONCE_BYTES : (number + 1) * _NONCE_BYTES]
            sealed.append(header + nonce + cipher.encrypt(nonce, plain, bound_to.encode() + header))
        return sealed

    def unseal_many(self, sealed: Sequence[tuple[bytes, str]]) -> list[str]:
        """Decrypts many secrets, each given with what it is bound to, past the cache: nobody asks for them again soon.

        It raises as `unseal` does.
        """
        master, cipher = self._key_and_cipher()
        header = bytes((_VERSION,)) + bytes.fromhex(master.key_id)
        body = _HEADER_BYTES + _NONCE_BYTES
        secrets = []
        for each, bound_to in sealed:
            plain = None
            if len(each) >= _MIN_BYTES and each[:_HEADER_BYTES] == header:
                plain = _decrypt(cipher, each[_HEADER_BYTES:body], each[body:], bound_to.encode() + header)
            # What does not open is looked at once more, by what knows all the reasons.
            secrets.append(self._unseal_uncached(each, bound_to) if plain is None else plain.decode("utf-8"))
        return secrets

    def unseal(self, sealed: bytes, *, bound_to: str) -> str:
        """Decrypt what `seal` made for the same row under the same master key.

        Raises:
            KeyProblem: there is no master key, it is another one, or the sealed bytes were changed or come
                from another row.
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
        """The same secret for the same row, sealed by another vault. It raises as `unseal` and `seal` do."""
        return to.seal(self._unseal_uncached(sealed, bound_to), bound_to=bound_to)

    def forget(self) -> None:
        """Drop every unsealed secret from memory, as a revocation wants."""
        with self._lock:
            self._cache.clear()

    def __repr__(self) -> str:
        if self._loaded_key is None:
            return "<Vault: master key not looked up yet>"
        master = self._loaded_key[0]
        return f"<Vault: master key {master.key_id} from {master.source}>"

    def _key_and_cipher(self, *, make: bool = False) -> tuple[MasterKey, AESGCM]:
        keyed = self._loaded_key
        if keyed is None:
            with self._lock:
                keyed = self._loaded_key
                if keyed is None:
                    find = self._create_key if make and self._create_key is not None else self._key_source
                    master = find if isinstance(find, MasterKey) else find()
                    keyed = self._loaded_key = (master, _cipher(master.secret))
        return keyed

    def _unseal_uncached(self, sealed: bytes, bound_to: str) -> str:
        if len(sealed) < _MIN_BYTES:
            raise KeyProblem(
                f"the secret of {bound_to} is cut short ({len(sealed)} bytes); restore the database from a backup"
            )
        if sealed[0] != _VERSION:
            raise KeyProblem(
                f"the secret of {bound_to} is sealed in form {sealed[0]}, and this jobdb knows form "
                f"{_VERSION}: a newer jobdb wrote it, or it is damaged; upgrade jobdb, or restore a backup"
            )
        master, cipher = self._key_and_cipher()
        header = sealed[:_HEADER_BYTES]
        key_id = header[1:].hex()
        if key_id != master.key_id:
            raise KeyProblem(
                f"the secret of {bound_to} is sealed under master key {key_id}, and the key at hand is "
                f"{master.key_id}, from {master.source}; give the other key (JOBDB_KEY_FILE names a file "
                "that holds it)"
            )
        body = _HEADER_BYTES + _NONCE_BYTES
        plain = _decrypt(cipher, sealed[_HEADER_BYTES:body], sealed[body:], bound_to.encode() + header)
        if plain is None:
            raise KeyProblem(
                f"the secret of {bound_to} does not open under master key {key_id}, which sealed it: it was "
                "changed, or moved there from another row; restore the database from a backup, or rotate the "
                "token"
            )
        return plain.decode("utf-8")


def _invalid_text(bound_to: str) -> InvalidInput:
    return InvalidInput(f"the secret for {bound_to} is not valid Unicode text; give it as UTF-8")


def _cipher(key: bytes) -> AESGCM:
    # Imported here because commands that touch no secret must start without it.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


# Both give None instead of the underlying error, so that no error, not even a chained one, holds a secret.


def _encoded(secret: str) -> bytes | None:
    try:
        return secret.encode("utf-8")
    except UnicodeEncodeError:
        return None


def _decrypt(cipher: AESGCM, nonce: bytes, body: bytes, associated: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(nonce, body, associated)
    except InvalidTag:
        return None
