"""Which topic prefixes a broker and every subscriber can take: one check for registering and for importing.

Pure. Called by the checks on arguments, by the reader of old records and by whoever subscribes to topics that are in a
database already. Sources: MQTT 5, sections 1.5.4 (UTF-8 strings) and 4.7 (topic names and filters). What the standard
merely advises against is refused too where brokers disconnect for it: mosquitto does so for control characters,
non-characters and topics of more than 200 levels, and whoever is disconnected for one topic loses all the others.
"""

from __future__ import annotations

import re

MAX_PREFIX_CHARS = 1024
"""Four bytes each at most: far below MQTT's 65,535 bytes, with ``/events`` behind it."""

MAX_PREFIX_LEVELS = 199
"""One less than mosquitto allows a topic: ``/events`` is a level too."""

_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")


def topic_problem(prefix: str) -> str | None:
    """Say why no topic can begin with this prefix, in words that follow "topic_prefix"; None where it can."""
    if not prefix:
        return "is empty"
    if len(prefix) > MAX_PREFIX_CHARS:
        return f"has {len(prefix):,} characters; at most {MAX_PREFIX_CHARS:,} fit"
    if "+" in prefix or "#" in prefix:
        return "has a wildcard (+ or #); it must name one topic"
    if prefix[0] == "$":
        return "begins with $, which is the broker's own ($SYS) or a shared subscription ($share)"
    if not (prefix.isascii() and prefix.isprintable()) and (_UNUSABLE.search(prefix) or _has_plane_end(prefix)):
        return "has a control character or something else that is no text in MQTT"
    if prefix.count("/") >= MAX_PREFIX_LEVELS:
        return f"has more than {MAX_PREFIX_LEVELS} levels; brokers take no more"
    return None


def _has_plane_end(text: str) -> bool:
    """Whether it has one of the last two code points of a Unicode plane, which are no characters."""
    return any(ord(char) & 0xFFFE == 0xFFFE for char in text)
