"""The verbs for tokens (FW-N6): show, list, rotate, revoke, rekey.

Called by the registry's ``tokens.py``, through the engine. Calls the store and the vault, never a driver.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...errors import IllegalTransition, InvalidInput
from ...model import JobStatus, from_ms
from ..verbs import verb
from .lookups import require_job, require_job_key
from .sealer import KEY_ID, Sealer, password_binding, token_binding
from .statements import JOBS, TOKENS
from .token_reuse import FINGERPRINT_KEY, reseal_key
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ...model import TokenInfo, TokenState
    from ..store import Transaction

_PAGE = 500


class _Token(NamedTuple):
    """A row of ``token_by_kid``: a token's version, the sealed token, and when it was revoked or expires."""

    kid: int
    sealed: bytes
    revoked_ms: int | None
    expires_ms: int | None


class TokenVerbs(VerbGroup):
    """The verbs for tokens."""

    @verb
    def token(self, job_id: str, *, kid: int | None) -> tuple[int, str]:
        """Return a token's version and the unsealed token; the current one if no version is named."""
        with self.store.read() as tx:
            token = _find_token(tx, job_id, kid or 0)
            if token is None:
                require_job_key(tx, job_id)
                raise _no_token(job_id, kid)
        self.store.sync()  # the caller will sign with it, so its rotation must not be undone
        return token.kid, self.vault.unseal(token.sealed, bound_to=token_binding(job_id, token.kid))

    @verb
    def tokens(self, job_id: str) -> list[TokenInfo]:
        """Return a job's tokens, without the secrets."""
        from ...core.authenticity import is_overlap_over

        with self.store.read() as tx:
            require_job_key(tx, job_id)
            rows = tx.all(TOKENS.list_tokens, job_id=job_id)
            now = tx.now_ms
        found = []
        for kid, created_ms, expires_ms, revoked_ms, imported, current, overlap_ms, ended_ms, updated_ms in rows:
            if revoked_ms is not None:
                state: TokenState = "revoked"
            elif is_overlap_over(expires_ms, overlap_ms, ended_ms, now_ms=now, updated_ms=updated_ms):
                state = "expired"
            else:
                state = "current" if kid == current else "overlap"
            created_at = from_ms(created_ms)
            assert created_at is not None
            info = model.TokenInfo(
                job_id, kid, created_at, from_ms(expires_ms), from_ms(revoked_ms), bool(imported), state
            )
            found.append(info)
        return found

    @verb
    def rotate_token(self, job_id: str, *, overlap_ms: int, token: str | None) -> int:
        """Issue a new token for a job; the old ones stay valid for the overlap. Return the new version."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            state = require_job(tx, job_id)
            if JobStatus(state.status).terminal:
                raise IllegalTransition(f"job {job_id} has ended as {state.status}; its tokens are no longer used")
            job = state.job
            highest = tx.one(TOKENS.highest_kid, job=job)
            assert highest is not None
            kid: int = highest[0] + 1
            if token is not None:
                self._refuse_old_token(tx, job_id, job, token)
            sealer = Sealer(tx, self.vault)
            tokens = self.reuse_guard.for_transaction(tx, sealer)
            token = tokens.issue_token(job_id, token)
            sealed = sealer.seal(token, bound_to=token_binding(job_id, kid))
            tx.run(JOBS.insert_token, job=job, kid=kid, sealed=sealed, imported=0, now=tx.now_ms)
            tx.run(TOKENS.expire_tokens, job=job, kid=kid, until=tx.now_ms + overlap_ms, now=tx.now_ms)
            tx.run(TOKENS.set_kid, job=job, kid=kid, now=tx.now_ms)
        tokens.warn_if_shared()
        return kid

    def _refuse_old_token(self, tx: Transaction, job_id: str, job: int, token: str) -> None:
        """Refuse a token that the job had before: everybody who holds it could sign again."""
        for kid, sealed in tx.all(TOKENS.sealed_tokens_of_job, job=job):
            old = self.vault.unseal(sealed, bound_to=token_binding(job_id, kid))
            if hmac.compare_digest(old.encode(), token.encode()):
                raise InvalidInput(
                    f"the given token is already token {kid} of job {job_id}",
                    advice="give another one, or omit it to have one generated",
                )

    @verb
    def revoke_token(self, job_id: str, *, kid: int) -> bool:
        """Revoke a token immediately; return whether it was the current one."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            job = require_job_key(tx, job_id)
            if _find_token(tx, job_id, kid) is None:
                raise _no_token(job_id, kid)
            tx.run(TOKENS.revoke_token, job=job, kid=kid, now=tx.now_ms)
            current = _find_token(tx, job_id, 0)
            return current is not None and current.kid == kid

    @verb
    def rekey(self, new: Vault) -> int:
        """Seal every secret again under another master key, all or none; return the number of secrets."""
        count = 0
        with self.store.write() as tx:
            # The row must exist to be locked: another process that seals the database's first secret creates it too.
            tx.run(JOBS.insert_setting, name=KEY_ID, value=new.key_id)
            tx.one(TOKENS.sealing_key_for_update, name=KEY_ID)
            after, after_kid = 0, 0
            while rows := tx.all(TOKENS.sealed_tokens, after=after, after_kid=after_kid, limit=_PAGE):
                for job_id, job, kid, sealed in rows:
                    resealed = self.vault.reseal(sealed, bound_to=token_binding(job_id, kid), to=new)
                    tx.run(TOKENS.reseal_token, job=job, kid=kid, sealed=resealed)
                    count += 1
                    after, after_kid = job, kid
            after = 0
            while passwords := tx.all(TOKENS.sealed_passwords, after=after, limit=_PAGE):
                for job_id, job, sealed in passwords:
                    resealed = self.vault.reseal(sealed, bound_to=password_binding(job_id), to=new)
                    tx.run(TOKENS.reseal_password, job=job, sealed=resealed)
                    count += 1
                    after = job
            kept = tx.one(JOBS.get_setting, name=FINGERPRINT_KEY)
            if kept is not None:
                tx.run(JOBS.put_setting, name=FINGERPRINT_KEY, value=reseal_key(kept[0], self.vault, to=new))
            tx.run(JOBS.put_setting, name=KEY_ID, value=new.key_id)
        self.vault.forget()
        self.vault = new
        return count


def _find_token(tx: Transaction, job_id: str, kid: int) -> _Token | None:
    """Read a token by its version; 0 stands for the current one."""
    row = tx.one(TOKENS.token_by_kid, job_id=job_id, kid=kid)
    return None if row is None else _Token._make(row)


def _no_token(job_id: str, kid: int | None) -> InvalidInput:
    return InvalidInput(
        f"job {job_id} has no token{f' {kid}' if kid else ''}",
        advice=f"registry.tokens.list({job_id!r}) returns its tokens",
        command=f"'jobdb token list {job_id}' shows its tokens",
    )
