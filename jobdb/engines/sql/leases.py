"""Verbs about named leases, for work that one process does at a time, as the relay and the reaper do."""

from __future__ import annotations

from ..verbs import verb
from .statements import LEASES
from .verb_group import VerbGroup


class LeaseVerbs(VerbGroup):
    """Verbs about named leases."""

    @verb
    def acquire_lease(self, name: str, *, holder: str, lease_ms: int) -> bool:
        """Take or renew a named lease; return False while another holder has it.

        One that ends later than it can is no obstacle: it was taken while a clock was ahead.
        """
        with self.store.write() as tx:
            until = tx.now_ms + lease_ms
            return tx.run(LEASES.acquire_lease, name=name, holder=holder, until_ms=until, now=tx.now_ms) > 0

    @verb
    def release_lease(self, name: str, *, holder: str) -> None:
        """Give a named lease back, if it is this holder's."""
        with self.store.write() as tx:
            tx.run(LEASES.release_lease, name=name, holder=holder)
