"""Checks on the arguments of public verbs: the one place where a person's input becomes values that are sound."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .. import model
from ..errors import InvalidInput
from ..model import EventKind, JobStatus
from .protocol import JOB_ID_PATTERN
from .protocol.topics import MAX_PREFIX_CHARS, topic_prefix_error
from .secrets import check_token

if TYPE_CHECKING:
    from ..model import Broker, NewJob

MAX_PROMPT_CHARS = 4_194_304
MAX_EXTRA_BYTES = 1_048_576
MAX_TIMEOUT_SEC = 10 * 366 * 86_400
MAX_LEASE_SEC = 366 * 86_400
MAX_PAGE = 10_000
RESERVED_FIELD = "jobdb_state"
"""What an export adds to a record; as a field of somebody else's it would be taken for that."""

_is_job_id = re.compile(JOB_ID_PATTERN).fullmatch
_KINDS = {kind.value: kind for kind in EventKind}


def shown(value: object, most: int = 60) -> str:
    """Return a value's ``repr`` for a message, cut; its type where it has none, as integers of thousands of digits."""
    try:
        return f"{value!r:.{most}}"
    except Exception:  # somebody else's __repr__; what is wrong with the argument is still to be said
        return f"a value of type {type(value).__name__}"


def to_builtin(value: Any) -> Any:
    """Return text or a number as the plain type that it is derived from; anything else as it is.

    A driver may take a subclass, such as an enumeration's member, for something else, and what a subclass answers to a
    comparison is not what is stored.
    """
    kind = type(value)
    if kind is str or kind is int or kind is float:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and kind is not bool:
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else value


def text(name: str, value: Any, *, most: int, least: int = 1) -> str:
    """``value`` as text of a bounded length that UTF-8 can hold and that has no NUL."""
    if type(value) is not str and not isinstance(value, str):
        raise InvalidInput(f"{name} must be text, not {type(value).__name__}")
    plain_text: str = value if type(value) is str else str.__str__(value)  # of a subclass, as an enumeration's member
    if not least <= len(plain_text) <= most:
        wanted = f"{least} to {most}" if least else f"at most {most}"
        raise InvalidInput(f"{name} has {len(plain_text)} characters; it may have {wanted}")
    if "\0" in plain_text:
        raise InvalidInput(f"{name} holds a NUL character; leave it out")
    try:
        plain_text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput(f"{name} is not valid Unicode text (a lone surrogate); is its encoding right?") from None
    return plain_text


def optional_text(name: str, value: object, *, most: int) -> str | None:
    return None if value is None else text(name, value, most=most)


def integer(name: str, value: Any, *, least: int, most: int) -> int:
    if type(value) is not int:
        value = to_builtin(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInput(f"{name} must be a whole number, not {shown(value)}")
    if not least <= value <= most:
        raise InvalidInput(f"{name} is {shown(value)}; it may be {least} to {most}")
    return value


def seconds_as_ms(name: str, value: Any, *, most: float = MAX_LEASE_SEC) -> int:
    """A positive duration in seconds, as whole milliseconds."""
    duration: float = value if type(value) in (int, float) else _number_of_seconds(name, value)
    if not 0 < duration <= most:
        raise InvalidInput(f"{name} is {shown(value)}; it may be above 0 and at most {most:.0f} seconds")
    return max(1, round(duration * 1000))


def seconds(name: str, value: Any, *, most: float = MAX_TIMEOUT_SEC) -> float:
    """Return a duration in seconds that may be 0, such as the most that a wait may take."""
    duration: float = value if type(value) in (int, float) else _number_of_seconds(name, value)
    if not 0 <= duration <= most:
        raise InvalidInput(f"{name} is {shown(value)}; it may be 0 to {most:.0f} seconds")
    return float(duration)


def _number_of_seconds(name: str, value: Any) -> float:
    value = to_builtin(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(f"{name} must be a number of seconds, not {shown(value)}")
    return value


def limit_sec(name: str, value: object) -> float | None:
    """Return the most that a wait may take, in seconds; none when None or infinite."""
    if value is None or (isinstance(value, float) and value == math.inf):
        return None
    return seconds(name, value)


def items(name: str, values: object, *, of: str) -> Iterable[Any]:
    """Return an iterable of several things; refuse text and mappings, whose parts would be taken for them."""
    if type(values) is list or type(values) is tuple:
        return values
    if isinstance(values, (str, bytes, bytearray, Mapping)) or not isinstance(values, Iterable):
        raise InvalidInput(f"{name} must be a list of {of}, not {type(values).__name__}")
    return values


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} must be True or False, not {shown(value)}")
    return value


def job_id(value: Any) -> str:
    if type(value) is not str:
        value = to_builtin(value)
    if not isinstance(value, str) or not _is_job_id(value):
        raise InvalidInput(
            f"{shown(value, 80)} is not a job id: letters, digits and _ . : @ -, at most 128, and no dot or dash first"
        )
    return value


def event_kind(value: Any) -> EventKind:
    if isinstance(value, EventKind):
        return value
    value = to_builtin(value)
    kind = _KINDS.get(value) if isinstance(value, str) else None
    if kind is None:
        raise InvalidInput(f"{shown(value)} is not an event; the events are {', '.join(EventKind)}")
    return kind


def statuses(values: object) -> tuple[JobStatus, ...]:
    """Return the statuses of one name or of several."""
    found = []
    for value in [values] if isinstance(values, str) else items("status", values, of="statuses"):
        try:
            found.append(JobStatus(to_builtin(value) if isinstance(value, str) else ""))
        except ValueError:
            raise InvalidInput(f"{shown(value)} is not a status; the statuses are {', '.join(JobStatus)}") from None
    return tuple(dict.fromkeys(found))


def start(value: Any) -> str:
    value = to_builtin(value)
    if not isinstance(value, str) or value not in ("beginning", "now"):
        raise InvalidInput(f"{shown(value)} is not a start; it is 'beginning' or 'now'")
    return value


def topic_prefix(value: object) -> str | None:
    """Check the beginning of an MQTT topic, as the import of old records does."""
    if value is None:
        return None
    topic = text("topic_prefix", value, most=MAX_PREFIX_CHARS)
    if not (topic := topic.rstrip("/")):
        raise InvalidInput("topic_prefix is nothing but slashes; name one topic")
    problem = topic_prefix_error(topic)
    if problem:
        raise InvalidInput(f"topic_prefix {topic!r:.80} {problem}")
    return topic


def artifacts(values: object) -> tuple[str, ...]:
    """Relative paths that stay inside the folder that they are looked for in."""
    found = []
    for value in items("expected_artifacts", values, of="paths"):
        path = text("an expected artifact", value, most=4096)
        if path.startswith("/") or ".." in path.split("/"):
            raise InvalidInput(f"expected artifact {path!r:.80} must be a relative path without '..'")
        found.append(path)
    return tuple(found)


def json_object(name: str, value: object) -> dict[str, Any]:
    """A mapping that JSON can hold, within a size."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} must be an object (a mapping), not {type(value).__name__}")
    result = dict(value)
    if not result:
        return result
    if RESERVED_FIELD in result:
        raise InvalidInput(f"{name} has the member {RESERVED_FIELD}, which exports write themselves; name it otherwise")
    try:
        size = len(json.dumps(result, allow_nan=False, ensure_ascii=False).encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} holds what JSON cannot: {error}") from None
    if size > MAX_EXTRA_BYTES:
        raise InvalidInput(f"{name} takes {size} bytes as JSON; it may take {MAX_EXTRA_BYTES}")
    return result


def broker(value: object) -> Broker:
    """Where events are published, every field checked."""
    if not isinstance(value, model.Broker):
        raise InvalidInput(f"broker must be a Broker, not {type(value).__name__}")
    text("the broker's host", value.host, most=255)
    integer("the broker's port", value.port, least=1, most=65_535)
    flag("the broker's tls", value.tls)
    optional_text("the broker's username", value.username, most=1024)
    flag("the broker's has_password", value.has_password)
    return value


def new_job(new: object) -> NewJob:
    """A job to register, every field checked."""
    if not isinstance(new, model.NewJob):
        raise InvalidInput(f"a job to register must be a NewJob, not {type(new).__name__}")
    auth = to_builtin(new.auth)
    if not isinstance(auth, str) or auth not in ("required", "never"):
        raise InvalidInput(f"auth is {shown(new.auth, 40)}; it is 'required' or 'never'")
    if auth == "never" and new.auth_token is not None:
        raise InvalidInput("a token was given together with auth='never'; give one of them")
    return model.NewJob(
        agent=text("agent", new.agent, most=128),
        prompt=text("prompt", new.prompt, most=MAX_PROMPT_CHARS, least=0),
        job_id=None if new.job_id is None else job_id(new.job_id),
        agent_session=optional_text("agent_session", new.agent_session, most=256),
        priority=integer("priority", new.priority, least=-1_000_000, most=1_000_000),
        topic_prefix=topic_prefix(new.topic_prefix),
        broker=None if new.broker is None else broker(new.broker),
        broker_password=optional_text("broker_password", new.broker_password, most=4096),
        timeout_sec=integer("timeout_sec", new.timeout_sec, least=0, most=MAX_TIMEOUT_SEC),
        idle_timeout_sec=integer("idle_timeout_sec", new.idle_timeout_sec, least=0, most=MAX_TIMEOUT_SEC),
        expected_artifacts=artifacts(new.expected_artifacts),
        extra=json_object("extra", new.extra),
        idempotency_key=optional_text("idempotency_key", new.idempotency_key, most=256),
        auth=auth,
        auth_token=None if new.auth_token is None else check_token(new.auth_token),
    )
