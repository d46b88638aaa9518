"""The worker process of a probe: it does file operations in one folder on command.

Started by parties.py as a plain script, so it starts within milliseconds. It imports only the standard library, and so
repeats two facts: the bytes that SQLite locks, and the location of the boot id. It reads one JSON object per line
(`{"do": "lock", …}`) and writes one (`{"value": …}` or `{"errno": …}`). It ends when its input ends. If the folder
hangs, only this process hangs with it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# All bytes of a database that SQLite locks (from PENDING_BYTE on, https://sqlite.org/fileformat2.html).
LOCK_START = 0x40000000
LOCK_LENGTH = 512

# Others may write to the folder too; their links must not lead out of it.
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW

_open_files: dict[str, int] = {}
_LOCK_KINDS = {"read": fcntl.LOCK_SH, "write": fcntl.LOCK_EX}


def open_file(name: str) -> None:
    """Open a file and keep it open: its locks are dropped when any descriptor of it is closed."""
    if name not in _open_files:
        _open_files[name] = os.open(name, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)


def lock(name: str, kind: str) -> bool:
    """Try to acquire the lock once; return False if another owner has it."""
    try:
        fcntl.lockf(_open_files[name], _LOCK_KINDS[kind] | fcntl.LOCK_NB, LOCK_LENGTH, LOCK_START)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def unlock(name: str) -> None:
    """Release the lock."""
    fcntl.lockf(_open_files[name], fcntl.LOCK_UN, LOCK_LENGTH, LOCK_START)


def exists(name: str) -> bool:
    """Return whether a file exists, by a lookup of its name, as SQLite does for a journal."""
    try:
        os.stat(name)
    except FileNotFoundError:
        return False
    return True


def create(name: str, text: str) -> None:
    """Create a file with this content, and sync it."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def read(name: str) -> str | None:
    """Return the content of a file, which is opened by name; None if there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | _FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
    try:
        return os.read(fd, 1 << 20).decode("utf-8", "replace")
    finally:
        os.close(fd)


def read_kept(name: str, length: int) -> str:
    """Read from the start of a file that is kept open."""
    return os.pread(_open_files[name], length, 0).decode("utf-8", "replace")


def write_kept(name: str, text: str) -> None:
    """Write at the start of a file that is kept open, and sync it."""
    os.pwrite(_open_files[name], text.encode(), 0)
    os.fsync(_open_files[name])


def count(name: str, seconds: float) -> int:
    """Increment the number in the file under the lock for some seconds; return the number of increments."""
    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end:
        if not lock(name, "write"):
            time.sleep(0.001)
            continue
        try:
            number = int(os.pread(_open_files[name], 20, 0) or b"0")
            os.pwrite(_open_files[name], b"%020d" % (number + 1), 0)
            os.fsync(_open_files[name])
        finally:
            unlock(name)
        done += 1
    return done


def publish(name: str, text: str) -> None:
    """Create a file that appears whole or not at all."""
    create(f"{name}.new", text)
    os.rename(f"{name}.new", name)


def listing() -> list[str]:
    """Return the names in the folder, bypassing caches.

    A network client may use a cached listing until it notices that the folder changed; a change of its own makes it
    query the server.
    """
    tick = f"tick-{os.getpid()}-{time.monotonic_ns()}"
    create(tick, "")
    os.unlink(tick)
    return sorted(os.listdir("."))


def remove(name: str) -> bool:
    """Remove a file; return False if there is none."""
    try:
        os.unlink(name)
    except FileNotFoundError:
        return False
    return True


def remove_folder(name: str, *, recursive: bool) -> bool:
    """Remove a folder of the probe, with its files if `recursive`; return False if something is left."""
    try:
        if recursive:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
            try:
                for file in os.listdir(fd):
                    os.unlink(file, dir_fd=fd)
            finally:
                os.close(fd)
        os.rmdir(name)
    except OSError:
        return False
    return True


def make_folder(name: str) -> None:
    """Create a folder unless it exists."""
    os.makedirs(name, mode=0o700, exist_ok=True)


def identity() -> str:
    """Return an identifier of this mount on this machine: the boot id, and the device number in this boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        boot = os.uname().nodename
    return f"{boot}:{os.stat('.').st_dev}"


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "open": open_file,
    "lock": lock,
    "unlock": unlock,
    "exists": exists,
    "create": create,
    "read": read,
    "read_kept": read_kept,
    "write_kept": write_kept,
    "count": count,
    "publish": publish,
    "listing": listing,
    "remove": remove,
    "remove_folder": remove_folder,
    "rename": os.rename,
    "make_folder": make_folder,
    "identity": identity,
}


def answer(line: str) -> dict[str, Any]:
    """Run one command; return its value or its error."""
    command = json.loads(line)
    try:
        return {"value": _OPERATIONS[command.pop("do")](**command)}
    except OSError as error:
        return {"errno": error.errno or errno.EIO}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {"errno": errno.EINVAL}


def enter(folder: str, subfolder: str) -> None:
    """Enter the folder, and one in it, which must not be a link."""
    os.chdir(folder)
    if subfolder:
        fd = os.open(subfolder, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        try:
            os.fchdir(fd)
        finally:
            os.close(fd)


def main(folder: str, subfolder: str) -> None:
    """Answer commands from standard input until it ends."""
    entered = False
    for line in sys.stdin:
        try:
            if not entered:  # in the loop: a folder that cannot be entered is an answer, not a crash
                enter(folder, subfolder)
                entered = True
            reply = answer(line)
        except OSError as error:
            reply = {"errno": error.errno or errno.EIO}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:3])
