"""Checks on the arguments of ``register``: :func:`new_job` returns the job to store, or raises InvalidInput.

Called by the verbs ``register`` and ``register_many``; calls ``arguments``, ``secrets`` and the rules for topics. Pure.
Separate from :mod:`jobdb.core.arguments` because only ``register`` needs it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .. import model
from ..errors import InvalidInput
from .arguments import (
    MAX_TIMEOUT_SEC,
    auth_mode,
    flag,
    integer,
    items,
    mapping,
    optional_job_id,
    optional_text,
    text,
)
from .protocol.topics import MAX_PREFIX_CHARS, topic_prefix_error
from .secrets import check_token

if TYPE_CHECKING:
    from ..model import Broker, NewJob

MAX_PROMPT_CHARS = 4_194_304
MAX_ATTEMPTS = 1_000_000
MAX_EXTRA_BYTES = 1_048_576
RESERVED_FIELD = "jobdb_state"
"""The field that an export adds to a record; a caller's field with this name would be mistaken for it."""


def topic_prefix(value: object) -> str | None:
    """Return the prefix of an MQTT topic without trailing slashes, or None; the import applies the same rule."""
    if value is None:
        return None
    topic = text("topic_prefix", value, most=MAX_PREFIX_CHARS)
    if not (topic := topic.rstrip("/")):
        raise InvalidInput("topic_prefix consists of slashes only", advice="name a topic")
    problem = topic_prefix_error(topic)
    if problem:
        raise InvalidInput(f"topic_prefix {topic!r:.80} {problem}")
    return topic


def artifacts(values: object) -> tuple[str, ...]:
    """Return relative paths that stay inside the folder that they are relative to."""
    found = []
    for value in items("expected_artifacts", values, of="paths"):
        path = text("an expected artifact", value, most=4096)
        if path.startswith("/") or ".." in path.split("/"):
            raise InvalidInput(f"expected artifact {path!r:.80} must be a relative path without '..'")
        found.append(path)
    return tuple(found)


def json_object(name: str, value: object) -> dict[str, Any]:
    """Return a JSON-serializable mapping of a bounded size."""
    result = dict(mapping(name, value))
    if not result:
        return result
    if RESERVED_FIELD in result:
        raise InvalidInput(f"{name} has the field {RESERVED_FIELD}, which is reserved for exports", advice="rename it")
    try:
        size = len(json.dumps(result, allow_nan=False, ensure_ascii=False).encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} cannot be written as JSON: {error}") from None
    if size > MAX_EXTRA_BYTES:
        raise InvalidInput(f"{name} must take at most {MAX_EXTRA_BYTES} bytes as JSON, not {size}")
    return result


def broker(value: object) -> Broker:
    """Return a broker with every field checked."""
    if not isinstance(value, model.Broker):
        raise InvalidInput(f"broker must be a Broker, not {type(value).__name__}")
    text("the broker's host", value.host, most=255)
    integer("the broker's port", value.port, least=1, most=65_535)
    flag("the broker's tls", value.tls)
    optional_text("the broker's username", value.username, most=1024)
    flag("the broker's has_password", value.has_password)
    return value


def new_job(new: object) -> NewJob:
    """Return a job to register with every field checked."""
    if not isinstance(new, model.NewJob):
        raise InvalidInput(f"a job to register must be a NewJob, not {type(new).__name__}")
    auth = auth_mode(new.auth)
    if auth == "never" and new.auth_token is not None:
        raise InvalidInput("auth_token and auth='never' exclude each other", advice="give one of them")
    return model.NewJob(
        agent=text("agent", new.agent, most=128),
        prompt=text("prompt", new.prompt, most=MAX_PROMPT_CHARS, least=0),
        job_id=optional_job_id(new.job_id),
        agent_session=optional_text("agent_session", new.agent_session, most=256),
        priority=integer("priority", new.priority, least=-1_000_000, most=1_000_000),
        topic_prefix=topic_prefix(new.topic_prefix),
        broker=None if new.broker is None else broker(new.broker),
        broker_password=optional_text("broker_password", new.broker_password, most=4096),
        timeout_sec=integer("timeout_sec", new.timeout_sec, least=0, most=MAX_TIMEOUT_SEC),
        idle_timeout_sec=integer("idle_timeout_sec", new.idle_timeout_sec, least=0, most=MAX_TIMEOUT_SEC),
        max_attempts=None
        if new.max_attempts is None
        else integer("max_attempts", new.max_attempts, least=1, most=MAX_ATTEMPTS),
        expected_artifacts=artifacts(new.expected_artifacts),
        extra=json_object("extra", new.extra),
        idempotency_key=optional_text("idempotency_key", new.idempotency_key, most=256),
        auth=auth,
        auth_token=None if new.auth_token is None else check_token(new.auth_token),
    )
