"""The public face: :class:`Registry` checks arguments and asks the engine; one transaction per verb."""

from __future__ import annotations

from .registry import DEFAULT_BUSY_SEC, DEFAULT_LEASE_SEC, DEFAULT_STRIKE_LIMIT, Registry, now_ms

__all__ = ["DEFAULT_BUSY_SEC", "DEFAULT_LEASE_SEC", "DEFAULT_STRIKE_LIMIT", "Registry", "now_ms"]
