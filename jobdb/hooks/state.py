"""The memory of one attempt's hooks: which calls an answer has let through, and when progress was last reported.

Called by ``run``. A small file, in the attempt's folder if ``jobdb work`` runs the agent, else in the user's runtime
folder; hooks of one attempt may run at the same time, so a lock is held while it is read and written.

An answer lets one call through per attempt: without that, a script that a person allowed once could be changed and run
again. The call is recorded before the agent hears that it may go on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import StorageFailed
from ..work.job_folder import runtime_folder

_FILE = "hooks.json"


class AttemptState:
    """The state of the hooks of one attempt.

    Args:
        path: its file, which need not exist; its folder must.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def find(cls, job_id: str, attempt: int | None, environ: Mapping[str, str]) -> AttemptState:
        """Return the state of an attempt, by its environment.

        Raises:
            StorageFailed: there is no folder for it.
        """
        context = environ.get("JOBDB_CONTEXT")
        if context and os.path.isdir(folder := os.path.dirname(context)):
            return cls(f"{folder}/{_FILE}")
        name = "\0".join((environ.get("JOBDB_URL", os.getcwd()), job_id, str(attempt)))
        return cls(f"{runtime_folder(environ)}/hooks-{hashlib.sha256(name.encode()).hexdigest()[:32]}.json")

    def is_used(self, key: str, use_id: str) -> bool:
        """Tell whether an answer has let another call through; a call without an id is the same as any."""
        with self._locked() as fd:
            return _is_used(_read(fd), key, use_id)

    def use(self, key: str, use_id: str) -> bool:
        """Record that an answer lets a call through.

        Returns:
            False, with nothing recorded, if it has let another call through.

        Raises:
            StorageFailed: it cannot be recorded.
        """
        with self._locked() as fd:
            state = _read(fd)
            if _is_used(state, key, use_id):
                return False
            if key not in state["used"]:
                state["used"][key] = use_id
                _write(fd, state)
            return True

    def take_turn(self, *, every_sec: float) -> bool:
        """Tell whether progress is to be reported now: at most once in ``every_sec`` seconds."""
        now = time.time()
        with self._locked() as fd:
            state = _read(fd)
            # A last time in the future means that the clock was set back.
            if 0 <= now - state["progress_at"] < every_sec:
                return False
            state["progress_at"] = now
            _write(fd, state)
            return True

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield fd
            finally:
                os.close(fd)
        except OSError as problem:
            raise StorageFailed(f"the hooks' state {self._path} cannot be kept: {problem.strerror}") from problem


def _is_used(state: dict[str, Any], key: str, use_id: str) -> bool:
    used_by = state["used"].get(key)
    return used_by is not None and use_id != "" and used_by != "" and used_by != use_id


def _read(fd: int) -> dict[str, Any]:
    size = os.fstat(fd).st_size
    if not size:
        return {"used": {}, "progress_at": 0.0}
    try:
        state = json.loads(os.pread(fd, size, 0))
        if isinstance(state["used"], dict) and isinstance(state["progress_at"], float):
            return {"used": state["used"], "progress_at": state["progress_at"]}
    except (ValueError, KeyError, TypeError):
        pass
    # Written by a hook that was killed in between: what it allowed is not known.
    raise StorageFailed("the hooks' state is damaged: it is not known which answers were used")


def _write(fd: int, state: dict[str, Any]) -> None:
    """Replace the content; a torn write leaves JSON that is refused."""
    content = json.dumps(state).encode("ascii")
    os.ftruncate(fd, 0)
    written = 0
    while written < len(content):
        written += os.pwrite(fd, content[written:], written)
