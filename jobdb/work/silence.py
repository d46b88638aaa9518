"""The activity of an agent past its worker, which takes it for silent: it has published, or asked, or has an answer.

Called by the dispatcher before it stops an attempt for its silence. Calls the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..registry import Registry
    from .slots import Slot


def note_own_events(registry: Registry, slot: Slot, clock: Callable[[], float]) -> None:
    """Tell a slot of the last sign of life that the database knows: an event, an answer, or an open question now.

    Args:
        registry: the registry.
        slot: the slot.
        clock: the worker's clock, in seconds.
    """
    silent_sec = registry.engine.silent_sec(slot.key[0])
    # An open question is looked at again after another idle limit, which so begins after its answer at the earliest.
    slot.note_sign(clock() - (silent_sec or 0.0))
