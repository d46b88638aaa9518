"""Tokens that serve a job id once: a job must not take the events of an earlier job of the same id for its own.

A job is pruned and its id is registered again: who has the old events, as the broker has its retained ones, can send
them once more. They verify where the new job has a token of the old one. So a token serves a job id once. A token that
is generated bears a mark: its last eight bytes are a keyed digest of the others and of the job's id, so that it is
recognized without being stored, however many jobs are pruned. Of a token that a person gives a keyed fingerprint is
kept. Imported tokens and those of older versions have neither: their jobs' tombstones say so, and the id is given
again only with a generated token.

A job that is not signed takes whatever comes. So an id that was pruned is not given to such a job at all. That costs a
tombstone for each id that a person gave; generated ones are not remembered, because nobody gives them again.

Two ids may have one token, and a warning says so: the id is in the signed bytes.

The key of marks and fingerprints is made with the first token and kept sealed among the settings.
"""

from __future__ import annotations

import binascii
import hmac
import os
from typing import TYPE_CHECKING

from ...errors import InvalidInput
from .statements import JOBS, TOKENS

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ..store import Transaction
    from .sealer import Sealer

FINGERPRINT_KEY = "fingerprint_key"
_BINDING = "the key of token fingerprints"
_ID_BYTES = 6
_KEY_BYTES = 32
_RANDOM_BYTES = 24
_MARK_BYTES = 8
_FINGERPRINT_BYTES = 16
_TOKEN_CHARS = 43
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class TokenReuseGuard:
    """The key of one database's marks and fingerprints, read once."""

    def __init__(self) -> None:
        self._key: bytes | None = None

    def for_transaction(self, tx: Transaction, sealer: Sealer) -> TransactionTokens:
        """Return the maker and checker of the tokens of one transaction."""
        return TransactionTokens(self, tx, sealer)

    def key(self, tx: Transaction, sealer: Sealer) -> bytes:
        """Return the key; make it when the database has none.

        Raises:
            KeyProblem: there is no master key, or it is not the database's.
        """
        if self._key is not None:
            return self._key
        sealer.check()
        row = tx.one(JOBS.get_setting, name=FINGERPRINT_KEY)
        if row is None:
            sealed = sealer.seal(os.urandom(_KEY_BYTES).hex(), bound_to=_BINDING)
            tx.run(JOBS.insert_setting, name=FINGERPRINT_KEY, value=sealed.hex())
            row = tx.one(JOBS.get_setting, name=FINGERPRINT_KEY)
            assert row is not None
            return _opened(row[0], sealer.vault)  # not remembered: this transaction may be rolled back
        self._key = _opened(row[0], sealer.vault)
        return self._key


class TransactionTokens:
    """The tokens of one transaction: made, checked and remembered."""

    def __init__(self, reuse_guard: TokenReuseGuard, tx: Transaction, sealer: Sealer) -> None:
        self._guard = reuse_guard
        self._tx = tx
        self._sealer = sealer
        self._key: bytes | None = None
        self._shared: list[tuple[str, str]] = []

    def issue_token(self, job_id: str, given: str | None) -> str:
        """Return the token of a job: a new one, or the given one, which is remembered.

        Raises:
            InvalidInput: a job of this id had the given token.
            KeyProblem: there is no master key, or it is not the database's.
        """
        key = self._key
        if key is None:
            key = self._key = self._guard.key(self._tx, self._sealer)
        if given is None:
            return make_token(key, job_id)
        if is_marked(key, job_id, given):
            raise _reuse_error(job_id)
        fingerprint = hmac.digest(key, b"given " + given.encode("utf-8", "surrogatepass"), "sha256")
        fingerprint = fingerprint[:_FINGERPRINT_BYTES]
        known = self._tx.one(TOKENS.token_fingerprints, fingerprint=fingerprint, job_id=job_id)
        if not self._tx.run(TOKENS.insert_fingerprint, fingerprint=fingerprint, job_id=job_id):
            raise _reuse_error(job_id)
        if known is not None:
            self._shared.append((job_id, known[0]))
        return given

    def warn_if_shared(self) -> None:
        """Warn when another id has the same token; called when the transaction is committed."""
        if not self._shared:
            return
        import warnings

        job_id, other = self._shared[0]
        more = f" (and for {len(self._shared) - 1} more)" if self._shared[1:] else ""
        warnings.warn(
            f"the token given for job {job_id}{more} is that of job {other} as well: who has it can speak for both. "
            "Leave it out, and one is generated",
            stacklevel=5,
        )


def generate_job_id() -> str:
    """Make a new job id: 12 hex digits, 48 random bits."""
    return os.urandom(_ID_BYTES).hex()


def is_generated_id(job_id: str) -> bool:
    """Return whether an id is like those that are generated. Nobody gives such a one to a second job but on purpose."""
    return len(job_id) == 2 * _ID_BYTES and not job_id.strip("0123456789abcdef")


def make_token(key: bytes, job_id: str) -> str:
    """Make a new token of 43 characters, as long as ``secrets.token_urlsafe(32)``, 192 bits of it random."""
    random = os.urandom(_RANDOM_BYTES)
    encoded = binascii.b2a_base64(random + _mark(key, job_id, random), newline=False)
    return encoded.rstrip(b"=").translate(_URL_SAFE).decode()


def is_marked(key: bytes, job_id: str, token: str) -> bool:
    """Return whether a token was generated under this key for a job of this id."""
    if len(token) != _TOKEN_CHARS:
        return False
    try:
        plain = binascii.a2b_base64(token.encode("ascii").translate(_FROM_URL_SAFE) + b"=", strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return False
    return hmac.compare_digest(plain[_RANDOM_BYTES:], _mark(key, job_id, plain[:_RANDOM_BYTES]))


def check_id_reuse(tx: Transaction, job_id: str, *, signed: bool) -> None:
    """Refuse an id for a job that would take a pruned job's events for its own.

    Args:
        tx: the transaction that registers the job.
        job_id: the id that it is given.
        signed: it has a token that was given; otherwise its events are not signed.

    Raises:
        InvalidInput: a pruned job of this id leaves no other way.
    """
    row = tx.one(TOKENS.tombstone, job_id=job_id)
    if row is None:
        return
    unremembered, _pruned_ms = row
    if not signed:
        raise InvalidInput(
            f"a job {job_id!r} was here and is pruned: its events, which a broker may still have, would be taken for "
            "those of the new one, which is not signed. Give another id, or let its events be signed: leave out auth "
            "'never'"
        )
    if unremembered:
        raise InvalidInput(
            f"a job {job_id!r} was here and is pruned, and whether the given token was its token is not known any "
            "more: its events would be taken for the new job's. Leave the token out and one is generated, or give "
            "another id"
        )


def reseal_key(kept: str, vault: Vault, *, to: Vault) -> str:
    """Seal the key under another master key, as the setting holds it."""
    return vault.reseal(bytes.fromhex(kept), bound_to=_BINDING, to=to).hex()


def _opened(kept: str, vault: Vault) -> bytes:
    return bytes.fromhex(vault.unseal(bytes.fromhex(kept), bound_to=_BINDING))


def _mark(key: bytes, job_id: str, random: bytes) -> bytes:
    return hmac.digest(key, random + job_id.encode(), "sha256")[:_MARK_BYTES]


def _reuse_error(job_id: str) -> InvalidInput:
    return InvalidInput(
        f"the given token was given before to a job of the id {job_id!r}, or generated for one: events that were "
        "signed with it would be taken for the new job's. Give another, or leave it out and one is generated"
    )
