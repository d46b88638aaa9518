"""The verbs over PostgreSQL: those of every SQL database, each run again when it is known not to have been done."""

from __future__ import annotations

import inspect
import random
import time
from functools import wraps
from typing import TYPE_CHECKING, Any

from ..sql.engine import SqlEngine
from .error_translation import RolledBack

if TYPE_CHECKING:
    from collections.abc import Callable

_MIN_BACKOFF_SEC = 0.01
_MAX_BACKOFF_SEC = 0.5


def retry_rolled_back(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a verb until it was done, was refused, or ``busy_sec`` are over.

    Only after RolledBack: a deadlock or a lost connection of which the server kept nothing. A verb whose outcome is
    unknown is never repeated.
    """

    @wraps(verb)
    def retrying(self: SqlEngine, *args: Any, **kwargs: Any) -> Any:
        pause, deadline = _MIN_BACKOFF_SEC, None
        while True:
            try:
                return verb(self, *args, **kwargs)
            except RolledBack:
                now = time.monotonic()
                deadline = deadline or now + getattr(self.store, "busy_sec", 0.0)
                if now >= deadline:
                    raise
            time.sleep(random.uniform(0.5, 1) * pause)
            pause = min(pause * 1.5, _MAX_BACKOFF_SEC)

    return retrying


class PostgresEngine(SqlEngine):
    """All verbs over a PostgreSQL store."""


for _name, _verb in inspect.getmembers(SqlEngine, inspect.isfunction):
    if not _name.startswith("_") and _name != "close":
        setattr(PostgresEngine, _name, retry_rolled_back(_verb))
