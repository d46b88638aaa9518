"""The state that a server keeps for its client: the registry, and the claims and questions that went through it.

Created by the server, once per process; used by the verbs of the tools. Calls the registry to release a claim that
its client has given up.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..errors import JobdbError, StaleAttempt

if TYPE_CHECKING:
    from ..model import Claim
    from ..registry import AsyncRegistry
    from .own_job import OwnJob

LOGGER = logging.getLogger("jobdb.mcp")
_REMEMBERED = 256

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)
"""The id of the request that a tool runs for, as text: clients may cancel the request 7 as "7"."""


class Session:
    """The state of one connection.

    A client may cancel a request in the very moment in which it is answered, and then drops the answer. A claim must
    not be lost that way, so the session remembers which request each claim was made for.

    Args:
        registry: the registry.
        own_job: the job that the server belongs to, if it was started for one.
        worker: the name with which it claims.
    """

    def __init__(self, registry: AsyncRegistry, *, own_job: OwnJob | None, worker: str) -> None:
        self.registry = registry
        self.own_job = own_job
        self.worker = worker
        self.asking: set[str] = set()  # the jobs that were claimed or asked for through this server
        self._claims: OrderedDict[str, Claim] = OrderedDict()
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    async def keep_claim(self, claim: Claim) -> bool:
        """Remember a claim for its request. If that was cancelled meanwhile, release it and return False."""
        request = current_request.get()
        self.asking.add(claim.job_id)
        if request is None:
            return True
        if request in self._cancelled:
            await self._release(claim)
            return False
        self._claims[request] = claim
        _forget_oldest(self._claims)
        return True

    def note_use(self, job_id: str) -> None:
        """Note that the client knows of a job's claim, so that its answer has arrived."""
        for request in [request for request, claim in self._claims.items() if claim.job_id == job_id]:
            del self._claims[request]

    async def cancel(self, request: str) -> None:
        """Release what was claimed for a request that the client has cancelled."""
        self._cancelled[request] = None
        _forget_oldest(self._cancelled)
        claim = self._claims.pop(request, None)
        if claim is not None:
            await self._release(claim)

    async def _release(self, claim: Claim) -> None:
        try:
            await self.registry.release(claim.job_id, attempt=claim.attempt)
        except StaleAttempt:
            pass  # it has ended, or has been returned by a reaper, meanwhile
        except JobdbError as error:
            LOGGER.warning("job %s stays claimed until its lease ends: %s", claim.job_id, error)


def _forget_oldest(remembered: OrderedDict[str, Claim] | OrderedDict[str, None]) -> None:
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
