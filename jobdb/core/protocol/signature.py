"""Signatures: HMAC-SHA256 (RFC 2104, FIPS 180-4) over the canonical form, in lower-case hex.

Called by ``wire``, when an event is built, and by ``core/authenticity.py``, when one is accepted; calls ``hmac``,
``json`` and the canonical form. A token is neither stored here nor shown in any error.
"""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING

from ...errors import InvalidInput
from .jcs import without_signature

if TYPE_CHECKING:
    from .event import WireEvent


def sign(message: bytes, token: str) -> str:
    """Return the signature of a canonical form.

    Args:
        message: the canonical form, as ``canonical`` returns it.
        token: the job's secret; its UTF-8 bytes are the key.

    Returns:
        64 lower-case hex digits.

    Raises:
        InvalidInput: the token is empty or cannot be encoded as UTF-8.
    """
    if not token:
        raise InvalidInput("the token is empty, and a signature needs a secret", advice="rotate the job's token")
    try:
        key = token.encode()
    except UnicodeEncodeError:
        raise InvalidInput("the token cannot be encoded as UTF-8", advice="rotate the job's token") from None
    return hmac.digest(key, message, "sha256").hex()


def verify(event: WireEvent, token: str, *, legacy: bool = False) -> bool:
    """Return whether an event was signed with a token.

    Args:
        event: the event, as ``parse`` returns it.
        token: the job's secret of the version that the event names.
        legacy: also accept the form that the old registry's agents sign, for an imported token:
            ``json.dumps(payload, sort_keys=True, separators=(",", ":"))`` with ASCII escapes. Both forms determine
            every value of the payload, so neither lets another payload through.

    Returns:
        True if the signature verifies; False also for an event without a signature and for an empty token, which is
        not a secret. The comparison takes constant time.
    """
    claimed = event.signature
    if claimed is None or not token or not claimed.isascii():
        return False
    if hmac.compare_digest(claimed, sign(event.message, token)):
        return True
    return legacy and hmac.compare_digest(claimed, sign(_legacy_form(event), token))


def _legacy_form(event: WireEvent) -> bytes:
    return json.dumps(without_signature(event.payload), sort_keys=True, separators=(",", ":")).encode("ascii")
