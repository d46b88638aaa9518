"""MQTT topics: which may be used, and which filter covers which. Source: MQTT 5, section 4.7. Pure functions."""

from __future__ import annotations

from ..core.protocol.topics import topic_error


def is_valid_topic(topic: str) -> bool:
    """Return whether events can be published on a topic and subscribed to there; records that are old may name any."""
    return topic_error(topic) is None


def topic_matches(topic_filter: str, topic: str) -> bool:
    """Return whether a topic filter covers a topic."""
    levels, parts = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(parts) or level not in ("+", parts[index]):
            return False
    return len(levels) == len(parts)
