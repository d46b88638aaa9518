"""Which topics a broker and every subscriber can take: one check for registering, importing and subscribing.

Pure. Sources: MQTT 5, sections 1.5.4 (UTF-8 strings) and 4.7 (topic names and filters). What the standard merely
advises against is refused too where brokers disconnect for it: mosquitto does so for control characters, non-characters
and topics of more than 201 levels, and whoever is disconnected for one topic loses all the others.
"""

from __future__ import annotations

import re

EVENTS_SUFFIX = "/events"
"""What stands behind a job's prefix in the topic of its events."""

MAX_PREFIX_CHARS = 1024
MAX_TOPIC_BYTES = 65_535
MAX_TOPIC_LEVELS = 201

_FORBIDDEN_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")


def topic_prefix_error(prefix: str) -> str | None:
    """Say why no job's topic can begin with this prefix, in words that follow "topic_prefix"; None where it can."""
    if not prefix:
        return "is empty"
    if len(prefix) > MAX_PREFIX_CHARS:
        return f"has {len(prefix):,} characters; at most {MAX_PREFIX_CHARS:,} fit"
    return topic_error(prefix + EVENTS_SUFFIX)


def topic_error(topic: str) -> str | None:
    """Say why nothing can be published on a topic and subscribed to there, in words that follow its name."""
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
    """Tell whether it has one of the last two code points of a Unicode plane, which are no characters."""
    return any(ord(char) & 0xFFFE == 0xFFFE for char in text)
