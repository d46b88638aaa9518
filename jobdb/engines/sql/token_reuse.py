"""The rule that a token serves a job id only once, so that no job accepts events of an earlier job with the same id.

Called by register, prune and the verbs for tokens. Runs statements only in its caller's transaction.

If a job is pruned and its id is registered again, anybody who has the old events (a broker has the retained ones) can
send them again. They would verify if the new job had a token of the old one. So a token serves a job id only once. A
generated token carries a mark: its last eight bytes are a keyed digest of the others and the job's id, so that it is
recognized without being stored, however many jobs are pruned. For a token given by a person, a keyed fingerprint is
stored. Imported tokens and those of older versions have neither: their jobs' tombstones record that, and the id can be
used again only with a generated token.

A job without signatures accepts any event. So a pruned id cannot be used for such a job at all. That requires a
tombstone for each id that a person gave; generated ids are not remembered, because nobody gives them again.

Two ids may share a token, with a warning: the id is among the signed bytes, so events cannot be confused.

The key of marks and fingerprints is created with the first token and stored, sealed, among the settings.
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
        """Return the object that generates and checks the tokens of one transaction."""
        return TransactionTokens(self, tx, sealer)

    def key(self, tx: Transaction, sealer: Sealer) -> bytes:
        """Return the key; create it if the database has none.

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
            return _opened(row[0], sealer.vault)  # not cached: this transaction may be rolled back
        self._key = _opened(row[0], sealer.vault)
        return self._key


class TransactionTokens:
    """The tokens of one transaction: generated, checked and recorded."""

    def __init__(self, reuse_guard: TokenReuseGuard, tx: Transaction, sealer: Sealer) -> None:
        self._guard = reuse_guard
        self._tx = tx
        self._sealer = sealer
        self._key: bytes | None = None
        self._shared: list[tuple[str, str]] = []

    def issue_token(self, job_id: str, given: str | None) -> str:
        """Return a job's token: a new one, or the given one, whose use is recorded.

        Raises:
            InvalidInput: a job with this id had the given token.
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
        """Warn if another id has the same token; called after the commit."""
        if not self._shared:
            return
        from ...system.caller_warnings import warn_caller

        job_id, other = self._shared[0]
        more = f" (and for {len(self._shared) - 1} more)" if self._shared[1:] else ""
        warn_caller(
            f"the token given for job {job_id}{more} is also the token of job {other}: whoever has it can publish for "
            "both. Omit it to have one generated"
        )


def generate_job_id() -> str:
    """Generate a job id: 12 hex digits, 48 random bits."""
    return os.urandom(_ID_BYTES).hex()


def is_generated_id(job_id: str) -> bool:
    """Return whether an id has the form of a generated one. Nobody uses such an id twice by accident."""
    return len(job_id) == 2 * _ID_BYTES and not job_id.strip("0123456789abcdef")


def make_token(key: bytes, job_id: str) -> str:
    """Generate a token: 43 characters, as many as from ``secrets.token_urlsafe(32)``, with 192 random bits."""
    random = os.urandom(_RANDOM_BYTES)
    encoded = binascii.b2a_base64(random + _mark(key, job_id, random), newline=False)
    return encoded.rstrip(b"=").translate(_URL_SAFE).decode()


def is_marked(key: bytes, job_id: str, token: str) -> bool:
    """Return whether a token was generated under this key for a job with this id."""
    if len(token) != _TOKEN_CHARS:
        return False
    try:
        plain = binascii.a2b_base64(token.encode("ascii").translate(_FROM_URL_SAFE) + b"=", strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return False
    return hmac.compare_digest(plain[_RANDOM_BYTES:], _mark(key, job_id, plain[:_RANDOM_BYTES]))


def check_id_reuse(tx: Transaction, job_id: str, *, signed: bool) -> None:
    """Refuse an id for a job that would accept the events of a pruned job with that id.

    Args:
        tx: the transaction that registers the job.
        job_id: the requested id.
        signed: the job has a given token; otherwise its events are not signed.

    Raises:
        InvalidInput: the id was used by a pruned job, and the events of the two could not be told apart.
    """
    row = tx.one(TOKENS.tombstone, job_id=job_id)
    if row is None:
        return
    unremembered, _pruned_ms = row
    if not signed:
        raise InvalidInput(
            f"a job {job_id!r} existed and was pruned: its events, which a broker may still have, would be accepted as "
            "those of the new job, whose events are not signed. Use another id, or sign the events: omit auth 'never'"
        )
    if unremembered:
        raise InvalidInput(
            f"a job {job_id!r} existed and was pruned, and it is no longer known whether the given token was its "
            "token: its events would be accepted as those of the new job. Omit the token to have one generated, or use "
            "another id"
        )


def reseal_key(kept: str, vault: Vault, *, to: Vault) -> str:
    """Seal the stored key under another master key; return the new value of the setting."""
    return vault.reseal(bytes.fromhex(kept), bound_to=_BINDING, to=to).hex()


def _opened(kept: str, vault: Vault) -> bytes:
    return bytes.fromhex(vault.unseal(bytes.fromhex(kept), bound_to=_BINDING))


def _mark(key: bytes, job_id: str, random: bytes) -> bytes:
    return hmac.digest(key, random + job_id.encode(), "sha256")[:_MARK_BYTES]


def _reuse_error(job_id: str) -> InvalidInput:
    return InvalidInput(
        f"the given token was used before for a job with the id {job_id!r}: events signed with it would be accepted as "
        "those of the new job. Give another token, or omit it to have one generated"
    )
