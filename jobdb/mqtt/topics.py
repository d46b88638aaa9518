"""MQTT topics: which may be used, and which filter covers which. Source: MQTT 5, section 4.7. Pure functions."""

from __future__ import annotations

from ..core.protocol.topics import mqtt_problem


def is_topic(topic: str) -> bool:
    """Return whether events can be published on a topic and subscribed to there; records that are old may name any."""
    return mqtt_problem(topic) is None


def topic_matches(name: str, topic: str) -> bool:
    """Return whether a topic filter covers a topic."""
    levels, parts = name.split("/"), topic.split("/")
    for place, level in enumerate(levels):
        if level == "#":
            return True
        if place >= len(parts) or level not in ("+", parts[place]):
            return False
    return len(levels) == len(parts)
