"""What an agent that seems silent has published on its own, past its worker: signs of life, and questions.

Called by the dispatcher before it stops an attempt for its silence. Calls the registry's verbs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import UnknownJob

if TYPE_CHECKING:
    from ..registry import Registry
    from .slots import Slot


def note_own_events(registry: Registry, slot: Slot, clock: Callable[[], float]) -> None:
    """Tell a slot of the last event that is recorded for its job.

    Args:
        registry: the registry.
        slot: the slot.
        clock: the worker's clock, in seconds.
    """
    try:
        job = registry.get(slot.key[0])
    except UnknownJob:
        return  # pruned: the next check of the claims finds out
    if job.last_event_at is not None:
        age_ms = registry.store.clock() - job.last_event_at.timestamp() * 1000
        slot.note_recorded(job.last_event, clock() - max(0.0, age_ms / 1000))
