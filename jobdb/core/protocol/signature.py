"""Signatures: HMAC-SHA256 (RFC 2104, FIPS 180-4) over the canonical form, in lower-case hex.

Called when an event is built and when it is accepted; calls ``hmac`` and ``json``. A token is used and
forgotten here: it is neither kept nor named in any error.
"""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING

from ...errors import InvalidInput
from .jcs import without_signature

if TYPE_CHECKING:
    from .wire import WireEvent


def sign(message: bytes, token: str) -> str:
    """The signature of a canonical form.

    Args:
        message: what ``canonical`` gave.
        token: the job's secret; its UTF-8 bytes are the key.

    Returns:
        64 lower-case hex digits.

    Raises:
        InvalidInput: the token is empty or has no UTF-8 form.
    """
    if not token:
        raise InvalidInput("the token is empty; a signature needs a secret: rotate the job's token")
    try:
        key = token.encode()
    except UnicodeEncodeError:
        raise InvalidInput("the token has no UTF-8 form; rotate the job's token") from None
    return hmac.digest(key, message, "sha256").hex()


def verify(event: WireEvent, token: str, *, legacy: bool = False) -> bool:
    """Whether the event was signed with this token.

    Args:
        event: what ``parse`` gave.
        token: the job's secret of the version that the event names.
        legacy: the token was imported from the old registry: its agents may sign
            ``json.dumps(payload, sort_keys=True, separators=(",", ":"))`` with ASCII escapes instead. Both
            forms determine every value of the payload, so neither lets another payload through.

    Returns:
        False also for an event without a signature, and for an empty token, which is no secret.
        The comparison takes the same time wherever the signatures differ.
    """
    claimed = event.signature
    if claimed is None or not token or not claimed.isascii():
        return False
    if hmac.compare_digest(claimed, sign(event.message, token)):
        return True
    return legacy and hmac.compare_digest(claimed, sign(_legacy_form(event), token))


def _legacy_form(event: WireEvent) -> bytes:
    return json.dumps(without_signature(event.payload), sort_keys=True, separators=(",", ":")).encode("ascii")
