"""MQTT topics: the topic of a job's events, which topics are valid, and matching filters.

Called by register, the import, accept, the relay and the subscriber. Pure: imports nothing from jobdb. Sources: MQTT 5,
sections 1.5.4 (UTF-8 strings) and 4.7 (topic names and filters). If the standard only advises against something but
brokers disconnect for it, it is refused as well: Mosquitto does so for control characters, non-characters and topics of
more than 201 levels, and a client that is disconnected because of one topic loses all the others.
"""

from __future__ import annotations

import re

EVENTS_SUFFIX = "/events"
"""The last level of the topic of a job's events, after the job's prefix."""

MAX_PREFIX_CHARS = 1024
MAX_TOPIC_BYTES = 65_535
MAX_TOPIC_LEVELS = 201

_FORBIDDEN_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")


def events_topic(prefix: str) -> str:
    """Return the topic of a job's events.

    Example:
        >>> events_topic("jobdb/jobs/abc12345")
        'jobdb/jobs/abc12345/events'
    """
    return prefix + EVENTS_SUFFIX


def topic_prefix_error(prefix: str) -> str | None:
    """Return why a job's topic cannot begin with this prefix, or None if it can.

    The result completes a sentence that begins with "topic_prefix".
    """
    if not prefix:
        return "is empty"
    if len(prefix) > MAX_PREFIX_CHARS:
        return f"has {len(prefix):,} characters; at most {MAX_PREFIX_CHARS:,} are allowed"
    return topic_error(events_topic(prefix))


def is_valid_topic(topic: str) -> bool:
    """Return whether a topic can be published and subscribed to; the records of old jobs may name any."""
    return topic_error(topic) is None


def topic_error(topic: str) -> str | None:
    """Return why a topic cannot be published or subscribed to, or None if it can.

    The result completes a sentence that begins with the topic's name.
    """
    if not topic:
        return "is empty"
    if "+" in topic or "#" in topic:
        return "has a wildcard (+ or #); it must name one topic"
    if topic[0] == "$":
        return "begins with $, which is the broker's own ($SYS) or a shared subscription ($share)"
    if not (topic.isascii() and topic.isprintable()) and (
        _FORBIDDEN_CHARACTERS.search(topic) or _has_noncharacter(topic)
    ):
        return "has a control character or something else that is not text in MQTT"
    if topic.count("/") >= MAX_TOPIC_LEVELS:
        return f"has too many levels; brokers take {MAX_TOPIC_LEVELS} with {EVENTS_SUFFIX!r}"
    if len(topic) * 4 > MAX_TOPIC_BYTES and len(topic.encode()) > MAX_TOPIC_BYTES:
        return f"takes more than {MAX_TOPIC_BYTES:,} bytes"
    return None


def _has_noncharacter(text: str) -> bool:
    """Return whether a text contains one of the last two code points of a Unicode plane, which are not characters."""
    return any(ord(char) & 0xFFFE == 0xFFFE for char in text)


def topic_matches(topic_filter: str, topic: str) -> bool:
    """Return whether a topic filter matches a topic.

    Example:
        >>> topic_matches("jobdb/jobs/+/events", "jobdb/jobs/abc12345/events")
        True
    """
    levels, parts = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(parts) or level not in ("+", parts[index]):
            return False
    return len(levels) == len(parts)
