"""Secrets that somebody gives: where they are read from, which are taken, when one may not be left out.

Called by the command line for ``--auth-token…`` and broker passwords, and by the registry to check a token
and ``auth="never"``. Reads a file, a descriptor, a stream or the environment; touches no database.

A token is the key of an HMAC-SHA256, and is taken when it is 128 bits long or longer. Its length counts by
what it is written in: 4 bits a character in hex, 6 bits in base64 of either alphabet, without its padding,
8 bits a byte in anything else: so 32 hex digits, 22 characters of base64, or 16 bytes of UTF-8. That is a
bound on the length alone; whether it is random is known only to who made it, which is why ``register`` makes
one when none is given.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, BinaryIO

from .errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Broker

LEAST_BITS = 128
MOST_BYTES = 1024

_HEX = r"[0-9a-f]*|[0-9A-F]*"
_BASE64 = r"([0-9A-Za-z_-]*|[0-9A-Za-z+/]*)={0,2}"
_NO = frozenset({"", "0", "false", "no", "off"})


def read_from_file(path: str | os.PathLike[str], *, what: str = "token") -> str:
    """The secret in a file: its one line.

    Args:
        path: the file.
        what: what the secret is, for messages.

    Raises:
        InvalidInput: the file cannot be read, or does not hold one secret; the message does not repeat it.
    """
    where = f"the file {os.fspath(path)}"
    try:
        with open(path, "rb") as file:
            return read_from_stream(file, where=where, what=what)
    except OSError as problem:
        raise InvalidInput(f"cannot read the {what} from {where}: {problem.strerror}") from problem


def read_from_descriptor(descriptor: int, *, what: str = "token") -> str:
    """The secret in a file descriptor that the caller inherited, read to its end and left open.

    Raises:
        InvalidInput: there is no such descriptor, or it does not hold one secret.
    """
    where = f"file descriptor {descriptor}"
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return read_from_stream(file, where=where, what=what)
    except (OSError, OverflowError, TypeError, ValueError) as problem:
        if isinstance(problem, InvalidInput):
            raise
        reason = getattr(problem, "strerror", None) or "not a descriptor"
        raise InvalidInput(
            f"cannot read the {what} from {where}: {reason}; open it in the shell, as in {descriptor}<FILE"
        ) from problem


def read_from_stream(stream: BinaryIO, *, where: str = "standard input", what: str = "token") -> str:
    """The secret in an open binary stream such as ``sys.stdin.buffer``: one line, to the end of the stream.

    Raises:
        InvalidInput: it does not hold one secret.
    """
    # One byte too many tells "too long" from "just fits"; two more are for the line's end.
    content = stream.read(MOST_BYTES + 3)
    if content.endswith(b"\n"):
        content = content[:-2] if content.endswith(b"\r\n") else content[:-1]
    text = _decoded(content)
    if text is None:
        raise InvalidInput(f"the {what} from {where} is not UTF-8; give it as text")
    return check_secret(text, where=where, what=what)


def read_from_environment(name: str, env: Mapping[str, str] | None = None, *, what: str = "token") -> str:
    """The secret in an environment variable, all of it.

    Args:
        name: the variable.
        env: the environment to read, the process's own when None.
        what: what the secret is, for messages.

    Raises:
        InvalidInput: it is not set, or holds no usable secret.
    """
    env = os.environ if env is None else env
    if name not in env:
        raise InvalidInput(f"cannot read the {what} from the environment: {name} is not set; export it first")
    return check_secret(env[name], where=f"the environment variable {name}", what=what)


def check_secret(secret: str, *, where: str = "the command line", what: str = "token") -> str:
    """Check what is demanded of every given secret: text of one line, not empty, of at most 1 KiB.

    Args:
        secret: the secret.
        where: where it came from, for messages.
        what: what it is, for messages.

    Returns:
        The secret as it is.

    Raises:
        InvalidInput: it is none; the message does not repeat it.
    """
    if not isinstance(secret, str):
        raise InvalidInput(f"the {what} from {where} must be text, not {type(secret).__name__}")
    encoded = _encoded(secret)
    if encoded is None:
        fault = "is not UTF-8; give it as text"
    elif not secret:
        fault = "is empty; was the command that should print it successful?"
    elif len(encoded) > MOST_BYTES:
        fault = f"is longer than {MOST_BYTES} bytes; name the place that holds the {what} alone"
    elif "\x00" in secret:
        fault = "contains a NUL character; give it as text"
    elif len(secret.splitlines()) > 1 or secret[-1] in "\r\n":
        fault = f"has more than one line; name the place that holds the {what} alone"
    elif secret != secret.strip():
        fault = "begins or ends with white space; remove it"
    else:
        return secret
    raise InvalidInput(f"the {what} from {where} {fault}")


def check_token(token: str, *, where: str = "the command line") -> str:
    """Check a given token: what `check_secret` demands, and the length of 128 bits by the rule at the top.

    Returns:
        The token as it is.

    Raises:
        InvalidInput: it is too short or no secret at all; the message does not repeat it.
    """
    check_secret(token, where=where)
    bits = length_in_bits(token)
    if bits < LEAST_BITS:
        raise InvalidInput(
            f"the token from {where} is {bits} bits long and must have {LEAST_BITS}: 32 hex digits, "
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


def is_secure_environment(broker: Broker | None, env: Mapping[str, str] | None = None) -> str | None:
    """Why a job must have a token here: ``auth="never"`` is refused where the surroundings are secured.

    Args:
        broker: the job's broker, where it has one.
        env: the environment to read, the process's own when None.

    Returns:
        The reason, in words that complete "refused because …", or None where a job may do without a token.
    """
    env = os.environ if env is None else env
    if _is_on(env.get("JOBDB_REQUIRE_AUTH")):
        return "JOBDB_REQUIRE_AUTH is set"
    if broker is not None:
        if broker.tls:
            return f"the broker {broker.host} uses TLS"
        if broker.username:
            return f"the broker {broker.host} has a username"
        if broker.has_password:
            return f"the broker {broker.host} has a password"
    if _is_on(env.get("MQTT_TLS")):
        return "MQTT_TLS is set: the broker uses TLS"
    for name, meaning in (
        ("MQTT_CERTFILE", "a client certificate"),
        ("MQTT_KEYFILE", "a client certificate"),
        ("MQTT_USERNAME", "a username"),
        ("MQTT_PASSWORD", "a password"),
    ):
        if env.get(name):
            return f"{name} is set: the broker wants {meaning}"
    return None


def _is_on(value: str | None) -> bool:
    """Whether a switch in the environment is on: a word that is not clearly "off" counts, for safety."""
    return value is not None and value.strip().lower() not in _NO


# Both give None instead of the codec's error, which would carry the secret.


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _encoded(secret: str) -> bytes | None:
    try:
        return secret.encode("utf-8")
    except UnicodeEncodeError:
        return None
