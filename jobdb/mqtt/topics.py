"""MQTT topics: which may be used, and which filter covers which. Source: MQTT 5, section 4.7. Pure functions."""

from __future__ import annotations

_MOST_BYTES = 65_535


def is_topic(topic: str) -> bool:
    """Return whether events can be published on a topic and subscribed to there.

    Imported records hold what they like. A wildcard, or a name beyond a client's reach, as all with a dollar sign
    first, would subscribe to something else; a NUL makes a broker end the connection.
    """
    if not topic or topic[0] == "$" or any(char in topic for char in "+#\0"):
        return False
    try:
        return len(topic.encode()) <= _MOST_BYTES
    except UnicodeEncodeError:
        return False


def topic_matches(name: str, topic: str) -> bool:
    """Return whether a topic filter covers a topic."""
    levels, parts = name.split("/"), topic.split("/")
    for place, level in enumerate(levels):
        if level == "#":
            return True
        if place >= len(parts) or level not in ("+", parts[place]):
            return False
    return len(levels) == len(parts)
