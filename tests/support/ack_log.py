"""What a worker was told, kept where neither its death nor a power cut of the lossy mount reaches it.

Each worker appends one JSON line before and after each call, with one ``write`` to an O_APPEND file on the
machine's own file system. The kernel holds what was written when the process is killed; the machine itself
is never cut, so nothing needs a sync here.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class AckLog:
    """Appends lines to one file; several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        weakref.finalize(self, os.close, self._descriptor)

    def write(self, **entry: Any) -> None:
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")


def read_ack_log(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines; nothing when the file is missing. A line cut short by a kill was never finished."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)
