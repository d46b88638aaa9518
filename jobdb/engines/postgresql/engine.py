"""The engine for PostgreSQL: a verb is run again if it is known not to have been done.

Called by ``engines/open.py``, which creates it over an open store. Wraps the verbs; never calls psycopg.
"""

from __future__ import annotations

import time
from functools import wraps
from typing import TYPE_CHECKING, Any

from ..sql.engine import Engine
from ..verbs import with_verbs
from .backoff import Backoff
from .error_translation import RolledBack

if TYPE_CHECKING:
    from ..verbs import Verb

_FIRST_PAUSE_SEC = 0.01
_LONGEST_PAUSE_SEC = 0.5


def retry_rolled_back(_name: str, run: Verb) -> Verb:
    """Wrap a verb so that it is retried until it succeeds or is refused, or the store's ``busy_sec`` have passed.

    It is retried only after RolledBack: a deadlock, or a lost connection after which the server has kept nothing. A
    verb whose outcome is unknown is never repeated.
    """

    @wraps(run)
    def retrying(self: Engine, *args: Any, **kwargs: Any) -> Any:
        backoff: Backoff | None = None
        deadline = 0.0
        while True:
            try:
                return run(self, *args, **kwargs)
            except RolledBack:
                now = time.monotonic()
                if backoff is None:
                    backoff = Backoff(_FIRST_PAUSE_SEC, longest_sec=_LONGEST_PAUSE_SEC)
                    deadline = now + self.store.busy_sec
                if now >= deadline:
                    raise
            time.sleep(backoff.next_jittered())

    return retrying


PostgresEngine = with_verbs(Engine, retry_rolled_back)
"""The engine whose verbs are retried after :class:`RolledBack`."""
