"""The trust in an imported job's events: the key that verifies them, if any, and the note in the report.

Called by the normalization. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from ...core.secrets import MIN_TOKEN_BITS, length_in_bits
from ...crypto.secret_input import auth_required_reason
from ...model import Broker
from ..database.key_markers import NoTokenReason
from ..format.damage import TrustWarning
from ..format.jobdb_state import current_kid, find_key
from ..format.record import LegacyRecord

_ROTATE = "'jobdb token rotate'"
_UNTIL_ROTATED = f"no event is accepted until {_ROTATE} gives it one"
_IS_REVOKED = f"its token was revoked: {_UNTIL_ROTATED}"
_IS_OMITTED = f"its token was left out of the export: {_UNTIL_ROTATED}"
_IS_UNSIGNED = "it has no auth_token: its events need no signature"


class Trust(NamedTuple):
    """The trust in a job's events.

    Attributes:
        kid: the version of its key; 0: its events need no signature.
        revoked_ms: when a key that nobody has was revoked, Unix milliseconds; None for a valid key.
        no_token_reason: why nobody has it; None if somebody has.
        note: the sentence about it in the report.
        warning: the same as a value of `TrustWarning`, or empty.
        created_ms, expires_ms: the key's times according to the state; without them it is as old as its job.
    """

    kid: int
    revoked_ms: int | None = None
    no_token_reason: NoTokenReason | None = None
    note: str = ""
    warning: str = ""
    created_ms: int | None = None
    expires_ms: int | None = None

    @classmethod
    def from_record(cls, record: LegacyRecord, auth_required_by: str | None) -> Trust:
        """Return the trust for a record.

        Args:
            record: the record.
            auth_required_by: why every job must have a token in this environment; None if that is not required.
        """
        if record.auth_token:
            return cls._from_token(record, record.auth_token)
        if record.state and record.state.get("auth_required"):
            return cls._without_known_token(record)
        if auth_required_by:
            return cls(
                kid=1,
                revoked_ms=record.updated_ms,
                no_token_reason=NoTokenReason.REQUIRED,
                note=f"it has no auth_token, and {auth_required_by}: {_UNTIL_ROTATED}",
                warning=TrustWarning.NO_USABLE_TOKEN.value,
            )
        reason = _exposed_broker_reason(record)
        note = f"{_IS_UNSIGNED}, though {reason}" if reason else _IS_UNSIGNED
        return cls(kid=0, note=note, warning=TrustWarning.UNSIGNED.value)

    @classmethod
    def _from_token(cls, record: LegacyRecord, token: str) -> Trust:
        # A token that is long enough in any alphabet needs no further check.
        bits = MIN_TOKEN_BITS if len(token) >= 32 else length_in_bits(token)
        if bits >= MIN_TOKEN_BITS:
            return FULL_TRUST if record.state is None else cls(current_kid(record.state))
        return cls(
            kid=current_kid(record.state),
            note=f"its auth_token has {bits} bits and should have {MIN_TOKEN_BITS}: give it another with {_ROTATE}",
            warning=TrustWarning.WEAK_TOKEN.value,
        )

    @classmethod
    def _without_known_token(cls, record: LegacyRecord) -> Trust:
        """Return the trust in a job whose events must be signed, but whose record has no token."""
        kid, warning = current_kid(record.state), TrustWarning.NO_USABLE_TOKEN.value
        revoked = find_key(record.state, kid)
        if revoked is None:
            return cls(
                kid=kid,
                revoked_ms=record.updated_ms,
                no_token_reason=NoTokenReason.OMITTED,
                note=_IS_OMITTED,
                warning=warning,
            )
        return cls(
            kid=kid,
            revoked_ms=revoked["revoked_ms"],
            no_token_reason=NoTokenReason.REVOKED,
            note=_IS_REVOKED,
            warning=warning,
            created_ms=revoked["created_ms"],
            expires_ms=revoked.get("expires_ms"),
        )


def _exposed_broker_reason(record: LegacyRecord) -> str | None:
    """Return why the job's broker requires a token; None if it does not."""
    broker = record.broker
    if broker is None:
        return None
    model = Broker(
        host=broker["host"],
        port=broker["port"],
        tls=broker.get("tls", False),
        username=broker.get("username"),
        has_password=record.broker_password is not None,
    )
    return auth_required_reason(model, {})


FULL_TRUST = Trust(kid=1)
"""The trust by a token of sufficient length and of the first version."""
