"""Small file systems in memory, for full disks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.fuse.mounting import unmount
from tests.support.requirements import require, require_root


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path]:
    """Mount a tmpfs of that size on ``folder``, which is created if missing. Requires root."""
    require_root("mounting a small disk")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k,mode=700", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, timeout=30, text=True)
    require(done.returncode == 0, f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        unmount(str(folder))


def resize_disk(folder: Path, size: str) -> None:
    """Give a mounted `small_disk` another size, such as ``64m``."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True, timeout=30)
