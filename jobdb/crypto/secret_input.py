"""The input of secrets from a file, a descriptor, a stream or the environment; and the rule when one is required.

Called by the command line for ``--auth-token…`` and broker passwords, and by the registry for ``auth="never"``. May
call ``core.secrets``, which checks the form of a secret; uses no database.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from ..core.secrets import MAX_SECRET_BYTES, check_secret
from ..errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Broker

_FALSE_VALUES = frozenset({"", "0", "false", "no", "off"})


def read_from_file(path: str | os.PathLike[str], *, label: str = "token") -> str:
    """Read a secret from a file that contains it as its only line.

    Args:
        path: the file.
        label: what the secret is, for messages.

    Raises:
        InvalidInput: the file cannot be read, or does not hold one secret; the message does not repeat it.

    Example:
        token = read_from_file("/run/secrets/job-token")
    """
    where = f"the file {os.fspath(path)}"
    try:
        with open(path, "rb") as file:
            return read_from_stream(file, where=where, label=label)
    except OSError as problem:
        raise InvalidInput(f"cannot read the {label} from {where}: {problem.strerror}") from problem


def read_from_descriptor(descriptor: int, *, label: str = "token") -> str:
    """Read a secret from a file descriptor that the caller inherited, to its end; leave it open.

    Raises:
        InvalidInput: there is no such descriptor, or it does not hold one secret.
    """
    where = f"file descriptor {descriptor}"
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return read_from_stream(file, where=where, label=label)
    except (OSError, OverflowError, TypeError, ValueError) as problem:
        if isinstance(problem, InvalidInput):
            raise
        reason = (problem.strerror if isinstance(problem, OSError) else None) or "not a descriptor"
        raise InvalidInput(
            f"cannot read the {label} from {where}: {reason}; open it in the shell, as in {descriptor}<FILE"
        ) from problem


def read_from_stream(stream: BinaryIO, *, where: str = "standard input", label: str = "token") -> str:
    """Read a secret from an open binary stream such as ``sys.stdin.buffer``: one line, to the end of the stream.

    Raises:
        InvalidInput: it does not hold one secret.
    """
    # One more byte distinguishes "too long" from "just fits"; two more are for the end of the line.
    content = stream.read(MAX_SECRET_BYTES + 3)
    if content.endswith(b"\n"):
        content = content[:-2] if content.endswith(b"\r\n") else content[:-1]
    text = _decode(content)
    if text is None:
        raise InvalidInput(f"the {label} from {where} is not UTF-8; give it as text")
    return check_secret(text, where=where, label=label)


def read_from_environment(name: str, env: Mapping[str, str] | None = None, *, label: str = "token") -> str:
    """Read a secret from an environment variable, whose whole value it is.

    Args:
        name: the variable.
        env: the environment to read; None for the process's own.
        label: what the secret is, for messages.

    Raises:
        InvalidInput: it is not set, or holds no usable secret.
    """
    env = os.environ if env is None else env
    if name not in env:
        raise InvalidInput(f"cannot read the {label} from the environment: {name} is not set; export it first")
    return check_secret(env[name], where=f"the environment variable {name}", label=label)


def auth_required_reason(broker: Broker | None, env: Mapping[str, str] | None = None) -> str | None:
    """Return the reason why a job must have a token: ``auth="never"`` is refused in a secured environment.

    Args:
        broker: the job's broker, if it has one.
        env: the environment to read; None for the process's own.

    Returns:
        The reason, in words that complete "refused because …"; None if a job may do without a token.
    """
    env = os.environ if env is None else env
    if _is_enabled(env.get("JOBDB_REQUIRE_AUTH")):
        return "JOBDB_REQUIRE_AUTH is set"
    if broker is not None:
        if broker.tls:
            return f"the broker {broker.host} uses TLS"
        if broker.username:
            return f"the broker {broker.host} has a username"
        if broker.has_password:
            return f"the broker {broker.host} has a password"
    if _is_enabled(env.get("MQTT_TLS")):
        return "MQTT_TLS is set: the broker uses TLS"
    for name, meaning in (
        ("MQTT_CERTFILE", "a client certificate"),
        ("MQTT_KEYFILE", "a client certificate"),
        ("MQTT_USERNAME", "a username"),
        ("MQTT_PASSWORD", "a password"),
    ):
        if env.get(name):
            return f"{name} is set: the broker requires {meaning}"
    return None


def _is_enabled(value: str | None) -> bool:
    """Return whether a switch in the environment is on; for safety, any value that is not clearly "off" is on."""
    return value is not None and value.strip().lower() not in _FALSE_VALUES


def _decode(content: bytes) -> str | None:
    """Decode UTF-8, or return None: the codec's error would contain the secret."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None
