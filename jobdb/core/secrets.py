"""The rules for a given secret: its form, and the length that a token must have.

Pure. A token is the key of an HMAC-SHA256, and is taken when it is 128 bits long or longer. Its length is counted by
its alphabet: 4 bits per character in hex, 6 bits in base64 of either alphabet without padding, 8 bits per byte in
anything else: 32 hex digits, 22 characters of base64, or 16 bytes of UTF-8. That bounds the length alone; whether the
token is random is known only to whoever made it, which is why ``register`` generates one when none is given.
"""

from __future__ import annotations

import re

from ..errors import InvalidInput

MIN_TOKEN_BITS = 128
MAX_SECRET_BYTES = 1024

_HEX = r"[0-9a-f]*|[0-9A-F]*"
_BASE64 = r"([0-9A-Za-z_-]*|[0-9A-Za-z+/]*)={0,2}"


def check_secret(secret: str, *, where: str = "the command line", label: str = "token") -> str:
    """Check what is demanded of every given secret: text of one line, not empty, of at most 1 KiB.

    Args:
        secret: the secret.
        where: where it came from, for messages.
        label: what it is, for messages.

    Returns:
        The secret as it is.

    Raises:
        InvalidInput: it is none; the message does not repeat it.
    """
    if not isinstance(secret, str):
        raise InvalidInput(f"the {label} from {where} must be text, not {type(secret).__name__}")
    encoded = _encoded(secret)
    if encoded is None:
        fault = "is not UTF-8; give it as text"
    elif not secret:
        fault = "is empty; was the command that should print it successful?"
    elif len(encoded) > MAX_SECRET_BYTES:
        fault = f"is longer than {MAX_SECRET_BYTES} bytes; name the place that holds the {label} alone"
    elif "\x00" in secret:
        fault = "contains a NUL character; give it as text"
    elif len(secret.splitlines()) > 1 or secret[-1] in "\r\n":
        fault = f"has more than one line; name the place that holds the {label} alone"
    elif secret != secret.strip():
        fault = "begins or ends with white space; remove it"
    else:
        return secret
    raise InvalidInput(f"the {label} from {where} {fault}")


def check_token(token: str, *, where: str = "the command line") -> str:
    """Check a given token: what `check_secret` demands, and the length of 128 bits by the rule at the top.

    Returns:
        The token as it is.

    Raises:
        InvalidInput: it is too short or no secret at all; the message does not repeat it.
    """
    check_secret(token, where=where)
    bits = length_in_bits(token)
    if bits < MIN_TOKEN_BITS:
        raise InvalidInput(
            f"the token from {where} is {bits} bits long and must have {MIN_TOKEN_BITS}: 32 hex digits, "
            "22 characters of base64 or 16 bytes of other text; leave it out and one is generated"
        )
    return token


def length_in_bits(token: str) -> int:
    """How long a token is, in bits, by the rule at the top of this file."""
    if re.fullmatch(_HEX, token):
        return 4 * len(token)
    if base64 := re.fullmatch(_BASE64, token):
        return 6 * len(base64[1])
    return 8 * len(token.encode("utf-8"))


def _encoded(secret: str) -> bytes | None:
    """Encode without the codec's error, which would carry the secret."""
    try:
        return secret.encode("utf-8")
    except UnicodeEncodeError:
        return None
