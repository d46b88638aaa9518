"""The rules for a secret that a caller supplies: its form, and the length of a token.

Called by register, the verbs for tokens, the import, and ``crypto/secret_input.py``, which reads a secret. Pure: stores
no secret and shows none in an error. A token is the key of an HMAC-SHA256 and must be at least 128 bits long. Its
length depends on its alphabet: 4 bits per character in hexadecimal, 6 bits in base64 of either alphabet without
padding, 8 bits per byte in anything else. So 32 hexadecimal digits, 22 characters of base64 or 16 bytes of UTF-8 are
enough. This bounds the length only; whether the token is random only its author knows, which is why ``register``
generates one if none is given.
"""

from __future__ import annotations

import re

from ..errors import InvalidInput

MIN_TOKEN_BITS = 128
MAX_SECRET_BYTES = 1024

_HEX = r"[0-9a-f]*|[0-9A-F]*"
_BASE64 = r"([0-9A-Za-z_-]*|[0-9A-Za-z+/]*)={0,2}"


def check_secret(secret: str, *, where: str = "", label: str = "token") -> str:
    """Check the form of a secret: one line of text, not empty, at most 1 KiB.

    Args:
        secret: the secret.
        where: its source, for messages; empty for an argument.
        label: its name, for messages.

    Returns:
        The secret as it is.

    Raises:
        InvalidInput: the form is invalid; the message does not contain the secret.
    """
    subject = f"the {label} from {where}" if where else f"the {label}"
    if not isinstance(secret, str):
        raise InvalidInput(f"{subject} must be text, not {type(secret).__name__}")
    encoded = _encoded(secret)
    if encoded is None:
        fault = "is not UTF-8; give it as text"
    elif not secret:
        fault = "is empty; check that the command that should print it succeeded" if where else "is empty"
    elif len(encoded) > MAX_SECRET_BYTES:
        fault = f"is longer than {MAX_SECRET_BYTES} bytes; name a source that contains only the {label}"
    elif "\x00" in secret:
        fault = "contains a NUL character; give it as text"
    elif len(secret.splitlines()) > 1 or secret[-1] in "\r\n":
        fault = f"has more than one line; name a source that contains only the {label}"
    elif secret != secret.strip():
        fault = "begins or ends with white space; remove it"
    else:
        return secret
    raise InvalidInput(f"{subject} {fault}")


def check_token(token: str, *, where: str = "") -> str:
    """Check the form of a token as :func:`check_secret` does, and its length by the rule at the top of this file.

    Returns:
        The token as it is.

    Raises:
        InvalidInput: the form is invalid, or the token is too short; the message does not contain it.
    """
    check_secret(token, where=where)
    bits = length_in_bits(token)
    if bits < MIN_TOKEN_BITS:
        raise InvalidInput(
            f"the token{f' from {where}' if where else ''} is {bits} bits long and must have {MIN_TOKEN_BITS}: 32 hex "
            "digits, 22 characters of base64 or 16 bytes of other text",
            advice="leave it out and one is generated",
        )
    return token


def length_in_bits(token: str) -> int:
    """Return the length of a token in bits, by the rule at the top of this file."""
    if re.fullmatch(_HEX, token):
        return 4 * len(token)
    if base64 := re.fullmatch(_BASE64, token):
        return 6 * len(base64[1])
    return 8 * len(token.encode("utf-8"))


def _encoded(secret: str) -> bytes | None:
    """Return a secret as UTF-8, or None if it cannot be encoded; the codec's error would contain the secret."""
    try:
        return secret.encode("utf-8")
    except UnicodeEncodeError:
        return None
