"""Small file systems: in memory, for full disks, and ones that can be frozen, for disks that do not answer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.fuse.mounting import unmount
from tests.support.requirements import require, require_program, require_root


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


@contextmanager
def freezable_disk(folder: Path) -> Iterator[Path]:
    """Mount an ext4 file system from a file on ``folder``, for `frozen`. Requires root, mkfs.ext4 and loop devices."""
    require_root("mounting a disk")
    make, _ = require_program("mkfs.ext4", "e2fsprogs"), require_program("fsfreeze", "util-linux")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    image = folder.with_name(f"{folder.name}.img")
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run([make, "-q", str(image)], check=True, timeout=60)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True, timeout=60, text=True)
    require(done.returncode == 0, f"a loop device cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        unmount(str(folder))


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Freeze a `freezable_disk`: until the end of the block, whoever writes to it waits and cannot be killed."""
    program = require_program("fsfreeze", "util-linux")
    subprocess.run([program, "--freeze", str(disk)], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run([program, "--unfreeze", str(disk)], check=True, timeout=60)
