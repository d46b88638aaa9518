"""Verbs about tokens (FW-N6): show, list, rotate, revoke, rekey."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from ... import model
from ...errors import IllegalTransition, InvalidInput, UnknownJob
from ...model import JobStatus, from_ms
from .rows import password_binding, token_binding
from .sealer import KEY_ID, Sealer
from .statements import JOBS, TOKENS
from .token_reuse import FINGERPRINT_KEY, reseal_key

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ...model import TokenInfo
    from ..store import Store, Transaction
    from .token_reuse import TokenReuseGuard

_PAGE = 500


class TokenVerbs:
    """Verbs about tokens."""

    store: Store
    vault: Vault
    reuse_guard: TokenReuseGuard

    def token(self, job_id: str, *, kid: int | None) -> tuple[int, str]:
        """A job's token in clear, with its version; the present one if none is named."""
        with self.store.read() as tx:
            row = tx.one(TOKENS.token_by_kid, job_id=job_id, kid=kid or 0)
            if row is None:
                _job_number(tx, job_id)
                raise InvalidInput(
                    f"job {job_id} has no token{f' {kid}' if kid else ''}; 'jobdb token list {job_id}' shows them"
                )
        self.store.sync()  # who is given it signs with it: its rotation must not be undone
        found, sealed = row[0], row[1]
        return found, self.vault.unseal(sealed, bound_to=token_binding(job_id, found))

    def tokens(self, job_id: str) -> list[TokenInfo]:
        """A job's tokens, without the secrets."""
        from ...core.authenticity import is_overlap_over

        with self.store.read() as tx:
            _job_number(tx, job_id)
            rows = tx.all(TOKENS.list_tokens, job_id=job_id)
            now = tx.now_ms
        found = []
        for kid, created_ms, expires_ms, revoked_ms, imported, current, overlap_ms, ended_ms, updated_ms in rows:
            if revoked_ms is not None:
                state = "revoked"
            elif is_overlap_over(expires_ms, overlap_ms, ended_ms, now_ms=now, updated_ms=updated_ms):
                state = "expired"
            else:
                state = "present" if kid == current else "overlap"
            created_at = from_ms(created_ms)
            assert created_at is not None
            info = model.TokenInfo(
                job_id, kid, created_at, from_ms(expires_ms), from_ms(revoked_ms), bool(imported), state
            )
            found.append(info)
        return found

    def rotate_token(self, job_id: str, *, overlap_ms: int, token: str | None) -> int:
        """Gives a job a new token; the old ones stay valid for the overlap. Returns the new version number."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            number = _job_number(tx, job_id)
            row = tx.one(JOBS.job_state, job_id=job_id)
            assert row is not None
            if JobStatus(row[1]).terminal:
                raise IllegalTransition(f"job {job_id} has ended as {row[1]}; its tokens sign nothing any more")
            highest = tx.one(TOKENS.highest_kid, job=number)
            assert highest is not None
            kid: int = highest[0] + 1
            if token is not None:
                self._refuse_old_token(tx, job_id, number, token)
            sealer = Sealer(tx, self.vault)
            reuse_guard = self.reuse_guard.for_transaction(tx, sealer)
            token = reuse_guard.issue_token(job_id, token)
            sealed = sealer.seal(token, bound_to=token_binding(job_id, kid))
            tx.run(JOBS.insert_token, job=number, kid=kid, sealed=sealed, imported=0, now=tx.now_ms)
            tx.run(TOKENS.expire_tokens, job=number, kid=kid, until=tx.now_ms + overlap_ms, now=tx.now_ms)
            tx.run(TOKENS.set_kid, job=number, kid=kid, now=tx.now_ms)
        reuse_guard.warn()
        return kid

    def _refuse_old_token(self, tx: Transaction, job_id: str, number: int, token: str) -> None:
        """A token that the job had before would make valid again whoever holds it."""
        for kid, sealed in tx.all(TOKENS.sealed_tokens_of_job, job=number):
            old = self.vault.unseal(sealed, bound_to=token_binding(job_id, kid))
            if hmac.compare_digest(old.encode(), token.encode()):
                raise InvalidInput(
                    f"the given token is token {kid} of job {job_id} already; give another, or leave it out and one is "
                    "generated"
                )

    def revoke_token(self, job_id: str, *, kid: int) -> bool:
        """Makes a token invalid at once. Returns whether it was the present one."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            number = _job_number(tx, job_id)
            row = tx.one(TOKENS.token_by_kid, job_id=job_id, kid=kid)
            if row is None:
                raise InvalidInput(f"job {job_id} has no token {kid}; 'jobdb token list {job_id}' shows them")
            tx.run(TOKENS.revoke_token, job=number, kid=kid, now=tx.now_ms)
            current = tx.one(TOKENS.token_by_kid, job_id=job_id, kid=0)
            return current is not None and current[0] == kid

    def rekey(self, new: Vault) -> int:
        """Seals every secret anew under another master key, all or none. Returns how many."""
        count = 0
        with self.store.write() as tx:
            # The row must be there to be locked: whoever seals the database's first secret meanwhile makes it too.
            tx.run(JOBS.insert_setting, name=KEY_ID, value=new.key_id)
            tx.one(TOKENS.sealing_key_for_update, name=KEY_ID)
            after, after_kid = 0, 0
            while rows := tx.all(TOKENS.sealed_tokens, after=after, after_kid=after_kid, limit=_PAGE):
                for job_id, job, kid, sealed in rows:
                    fresh = self.vault.reseal(sealed, bound_to=token_binding(job_id, kid), to=new)
                    tx.run(TOKENS.reseal_token, job=job, kid=kid, sealed=fresh)
                    count += 1
                after, after_kid = rows[-1][1], rows[-1][2]
            after = 0
            while passwords := tx.all(TOKENS.sealed_passwords, after=after, limit=_PAGE):
                for job_id, job, sealed in passwords:
                    fresh = self.vault.reseal(sealed, bound_to=password_binding(job_id), to=new)
                    tx.run(TOKENS.reseal_password, job=job, sealed=fresh)
                    count += 1
                after = passwords[-1][1]
            kept = tx.one(JOBS.get_setting, name=FINGERPRINT_KEY)
            if kept is not None:
                tx.run(JOBS.put_setting, name=FINGERPRINT_KEY, value=reseal_key(kept[0], self.vault, to=new))
            tx.run(JOBS.put_setting, name=KEY_ID, value=new.key_id)
        self.vault.forget()
        self.vault = new
        return count


def _job_number(tx: Transaction, job_id: str) -> int:
    row = tx.one(JOBS.job_number, job_id=job_id)
    if row is None:
        raise UnknownJob(job_id)
    number: int = row[0]
    return number
