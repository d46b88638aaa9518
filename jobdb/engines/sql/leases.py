"""The verbs for named leases, for work that one process does at a time, such as the relay's.

Called by the relay, through the engine. Calls only the store.
"""

from __future__ import annotations

from ..verbs import verb
from .statements import LEASES
from .verb_group import VerbGroup


class LeaseVerbs(VerbGroup):
    """The verbs for named leases."""

    @verb
    def acquire_lease(self, name: str, *, holder: str, lease_ms: int) -> bool:
        """Acquire or renew a named lease; return False while another holder has it.

        A lease that ends later than it can was acquired while a clock was ahead: it is void and can be taken over.
        """
        with self.store.write() as tx:
            until = tx.now_ms + lease_ms
            return tx.run(LEASES.acquire_lease, name=name, holder=holder, until_ms=until, now=tx.now_ms) > 0

    @verb
    def release_lease(self, name: str, *, holder: str) -> None:
        """Release a named lease, if this holder has it."""
        with self.store.write() as tx:
            tx.run(LEASES.release_lease, name=name, holder=holder)
