"""A log of acknowledgements that survives the death of a worker and a power cut of the lossy mount.

Workers append JSON lines, each with one ``write`` to an O_APPEND file on the machine's own file system. The kernel
keeps what was written when the process is killed; the machine itself keeps running, so nothing needs a sync here.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class AckLog:
    """A writer of JSON lines to one file, which several processes may share."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        weakref.finalize(self, os.close, self._descriptor)

    def write(self, **entry: Any) -> None:
        """Append one line."""
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")


def read_ack_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield all whole lines; none if the file is missing. A line that a kill cut short is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)
