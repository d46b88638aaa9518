"""How an imported job's events are to be believed: by which key, or by none, and what is to be said of it.

Called when a job is made ready to be stored. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from ...core.secrets import MIN_TOKEN_BITS, length_in_bits
from ...crypto.secret_input import auth_required_reason
from ...model import Broker
from ..database.job_row import TOKEN_OMITTED, TOKEN_REQUIRED, TOKEN_REVOKED
from ..format.damage import TrustWarning
from ..format.jobdb_state import current_kid, find_key
from ..format.record import LegacyRecord

_ROTATE = "'jobdb token rotate'"
_UNTIL_ROTATED = f"no event is accepted until {_ROTATE} gives it one"
_IS_REVOKED = f"its token was revoked: {_UNTIL_ROTATED}"
_IS_LEFT_OUT = f"its token was left out of the export: {_UNTIL_ROTATED}"
_IS_UNSIGNED = "it has no auth_token: its events need no signature"


class Trust(NamedTuple):
    """How a job's events are to be believed.

    Attributes:
        kid: the version of its key; 0: they need no signature.
        revoked_ms: of a key that nobody has; None for one that is valid.
        no_token_reason: why nobody has it.
        note: what is to be said of it.
        warning: the same as a value of `damage.TrustWarning`.
        created_ms, expires_ms: of a key of which the state says so; else it is as old as its job.
    """

    kid: int
    revoked_ms: int | None = None
    no_token_reason: str = ""
    note: str = ""
    warning: str = ""
    created_ms: int | None = None
    expires_ms: int | None = None

    @classmethod
    def from_record(cls, record: LegacyRecord, auth_required_by: str | None) -> Trust:
        state, token = record.state, record.auth_token
        if token:
            # What is long enough in whatever alphabet needs no closer look.
            bits = MIN_TOKEN_BITS if len(token) >= 32 else length_in_bits(token)
            if bits >= MIN_TOKEN_BITS and state is None:
                return FULL_TRUST
            if bits >= MIN_TOKEN_BITS:
                return cls(current_kid(state))
            weak = f"its auth_token has {bits} bits and should have {MIN_TOKEN_BITS}: give it another with {_ROTATE}"
            return cls(current_kid(state), None, "", weak, TrustWarning.WEAK_TOKEN.value)
        if state and state.get("auth_required"):
            kid = current_kid(state)
            revoked = find_key(state, kid)
            if revoked is not None:
                times = revoked["created_ms"], revoked.get("expires_ms")
                warning = TrustWarning.NO_USABLE_TOKEN.value
                return cls(kid, revoked["revoked_ms"], TOKEN_REVOKED, _IS_REVOKED, warning, *times)
            return cls(kid, record.updated_ms, TOKEN_OMITTED, _IS_LEFT_OUT, TrustWarning.NO_USABLE_TOKEN.value)
        if auth_required_by:
            note = f"it has no auth_token, and {auth_required_by}: {_UNTIL_ROTATED}"
            return cls(1, record.updated_ms, TOKEN_REQUIRED, note, TrustWarning.NO_USABLE_TOKEN.value)
        broker = record.broker
        note = _IS_UNSIGNED
        if broker is not None:
            has_password = record.broker_password is not None
            place = Broker(
                broker["host"], broker["port"], broker.get("tls", False), broker.get("username"), has_password
            )
            reason = auth_required_reason(place, {})
            note = f"{note}, though {reason}" if reason else note
        return cls(0, None, "", note, TrustWarning.UNSIGNED.value)


FULL_TRUST = Trust(1)
"""By a token that is long enough, of the first version."""
