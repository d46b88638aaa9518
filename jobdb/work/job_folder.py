"""The folders of attempts on this host: a job's prompt, its channel and its context; and the lock of each job.

Called by the worker: for each attempt, and when it starts, to remove what killed workers have left. The keeper locks
the lock file, which is how the attempts of one job exclude each other on this host.

    <runtime folder>/<registry id>/<digest of the job id>.lock
    <runtime folder>/<registry id>/<digest of the job id>-<attempt>/{prompt,events,context.json}

The runtime folder belongs to one user of one host: ``$JOBDB_RUNTIME_DIR``; without it ``/run/user/UID/jobdb`` if that
user has a login session, else ``/tmp/jobdb-UID``. It is found anew for each attempt, because the session, and its
folder with it, may end while the worker goes on.

An attempt's folder is in use as long as its worker holds a shared flock on it. It is stale when nobody does and the
job's lock is free. Shared flocks on the two folders above keep systemd-tmpfiles, which removes what has not been used
for days, away from them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from ..core.log_paths import folder_name
from ..errors import InvalidInput, StorageFailed

LOCK_FILE_SEC = 86_400.0
"""The time for which a job's lock file is kept after its last use, in seconds."""

_SESSIONS = "/run/user"
_SHARED = "/tmp"
_DIGITS = 32
_ATTEMPT = re.compile(rf"([0-9a-f]{{{_DIGITS}}})-[0-9]+").fullmatch
_LOCK = re.compile(rf"([0-9a-f]{{{_DIGITS}}})\.lock").fullmatch


def runtime_folder(environ: Mapping[str, str] | None = None) -> str:
    """Return this user's runtime folder on this host; create it if there is none.

    Args:
        environ: the environment variables; those of this process if None.

    Raises:
        InvalidInput: JOBDB_RUNTIME_DIR is not an absolute path.
        StorageFailed: the folder cannot be created, is a link, belongs to another user or can be written by others.
    """
    given = (os.environ if environ is None else environ).get("JOBDB_RUNTIME_DIR")
    if given:
        if not os.path.isabs(given):
            raise InvalidInput(f"JOBDB_RUNTIME_DIR is {given!r:.200}, a relative path", advice="give an absolute one")
        with suppress(OSError):  # what is missing then is reported for the folder itself
            os.makedirs(os.path.dirname(os.path.normpath(given)), 0o700, exist_ok=True)
        return _private_folder(os.path.normpath(given), allow_readers=True)
    user = os.geteuid()
    session = f"{_SESSIONS}/{user}"
    with suppress(OSError):
        info = os.lstat(session)
        if stat.S_ISDIR(info.st_mode) and info.st_uid == user:
            return _private_folder(f"{session}/jobdb")
    return _private_folder(f"{_SHARED}/jobdb-{user}")


def lock_path(registry_id: str, job_id: str, *, environ: Mapping[str, str] | None = None) -> str:
    """Return the path of a job's lock file, which need not exist; its folder does.

    Whoever has locked it must check that the path still leads to the file that is locked, and open it again if not: a
    worker removes lock files that are free and have not been used for a day.

    Args:
        registry_id: the registry of the job.
        job_id: the job.
        environ: the environment variables; those of this process if None.

    Raises:
        InvalidInput, StorageFailed: as :func:`runtime_folder`.
    """
    return f"{_registry_folder(registry_id, environ)}/{_digest(job_id)}.lock"


@dataclass(slots=True)
class AttemptFolder:
    """The folder of an attempt; in use until it is removed, or its worker ends.

    Attributes:
        path: the folder.
    """

    path: str
    _hold: int

    @property
    def prompt(self) -> str:
        """The file with the prompt, to be opened as stdin."""
        return f"{self.path}/prompt"

    @property
    def events(self) -> str:
        """The channel, a FIFO: ``$JOBDB_EVENTS``."""
        return f"{self.path}/events"

    @property
    def context(self) -> str:
        """The file of ``$JOBDB_CONTEXT``."""
        return f"{self.path}/context.json"

    def remove(self) -> None:
        """Remove the folder with everything in it, as far as that is possible; a second call does nothing."""
        if self._hold >= 0:
            hold, self._hold = self._hold, -1
            _remove_tree(self.path)
            os.close(hold)


class JobFolders:
    """The folders and locks of one registry's jobs, as long as a worker runs. Its threads may share it.

    Args:
        registry_id: the registry.
        environ: the environment variables; those of this process if None.
    """

    def __init__(self, registry_id: str, environ: Mapping[str, str] | None = None) -> None:
        self._registry_id = registry_id
        self._environ = dict(os.environ if environ is None else environ)
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}

    def lock_path(self, job_id: str) -> str:
        """Return the path of a job's lock file; see :func:`lock_path`."""
        return f"{self._folder()}/{_digest(job_id)}.lock"

    def create(self, job_id: str, attempt: int, *, prompt: str, context: str) -> AttemptFolder:
        """Create the folder of an attempt; what an earlier one of the same number has left is removed.

        Args:
            job_id: the job.
            attempt: the attempt.
            prompt: the text of the job.
            context: the text of the context file.

        Raises:
            StorageFailed: it cannot be created; the message says why.
        """
        name = f"{_digest(job_id)}-{attempt}"
        made = AttemptFolder(*self._make(name))
        try:
            _write(made.prompt, prompt)
            _write(made.context, context)
            os.mkfifo(made.events, 0o600)
            os.chmod(made.events, 0o600)  # the umask may have removed the owner's permissions
        except OSError as problem:
            made.remove()
            raise _not_writable(made.path, problem) from problem
        except BaseException:
            made.remove()
            raise
        return made

    def remove_stale(self) -> int:
        """Remove the folders of attempts of which neither a worker nor a process is left, and old lock files.

        Returns:
            How many folders were removed. What cannot be removed stays, and is tried again next time.
        """
        folder = self._folder()
        removed = 0
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            return 0
        for name in names:
            with suppress(OSError):
                if found := _ATTEMPT(name):
                    removed += _remove_if_stale(f"{folder}/{name}", f"{folder}/{found[1]}.lock")
                elif _LOCK(name):
                    _remove_old_lock(f"{folder}/{name}")
        return removed

    def close(self) -> None:
        """Stop holding the folders above, and remove the registry's if nobody needs it; attempts keep their own."""
        with self._lock:
            for path, hold in self._held.items():
                with suppress(OSError):
                    if os.path.basename(path) == folder_name(self._registry_id):
                        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no other worker has it
                        os.rmdir(path)
                os.close(hold)
            self._held.clear()

    def _folder(self) -> str:
        folder = _registry_folder(self._registry_id, self._environ)
        for path in (os.path.dirname(folder), folder):
            self._hold(path)
        return folder

    def _hold(self, path: str) -> None:
        """Hold a shared lock on a folder; another one may have its name since the last time."""
        with self._lock, suppress(OSError):
            held = self._held.get(path)
            if held is not None:
                if _is_at(held, path):
                    return
                os.close(self._held.pop(path))
            self._held[path] = _open_folder(path)
            fcntl.flock(self._held[path], fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _make(self, name: str) -> tuple[str, int]:
        """Make an attempt's folder; return its path and a descriptor that holds it."""
        while True:
            path = f"{self._folder()}/{name}"
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                if not _remove_tree(path):
                    raise StorageFailed(
                        f"the folder {path} of an earlier attempt cannot be removed", advice="remove it yourself"
                    ) from None
                continue
            except FileNotFoundError:  # another worker ended just now and removed the folder above
                continue
            except OSError as problem:
                raise _not_writable(path, problem) from problem
            with suppress(FileNotFoundError):  # a worker that started just now took it for stale: make it again
                os.chmod(path, 0o700)
                hold = _open_folder(path)
                fcntl.flock(hold, fcntl.LOCK_SH)
                if _is_at(hold, path):
                    return path, hold
                os.close(hold)


def _digest(job_id: str) -> str:
    return hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _registry_folder(registry_id: str, environ: Mapping[str, str] | None) -> str:
    return _private_folder(f"{runtime_folder(environ)}/{folder_name(registry_id)}")


def _private_folder(path: str, *, allow_readers: bool = False) -> str:
    """Create a folder of mode 0700, or check that an existing one is private; return its path."""
    try:
        info = _make_folder(path)
    except OSError as problem:
        raise StorageFailed(
            f"the runtime folder {path} cannot be created: {problem.strerror}",
            advice="set JOBDB_RUNTIME_DIR to a folder of your own, on a local disk",
        ) from problem
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        fault = "is a symbolic link"
    elif not stat.S_ISDIR(info.st_mode):
        fault = "is not a folder"
    elif info.st_uid != os.geteuid():
        fault = f"belongs to another user (uid {info.st_uid})"
    elif mode & (0o022 if allow_readers else 0o077):
        fault = f"is open to other users (mode {mode:04o})"
    else:
        return path
    raise StorageFailed(
        f"the runtime folder {path} {fault}, so no job can be run in it",
        advice="remove it or make it private (chmod 700), or set JOBDB_RUNTIME_DIR to a folder of your own",
    )


def _make_folder(path: str) -> os.stat_result:
    """Create a folder if there is none; return what it is."""
    while True:
        made = False
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
            made = True
        with suppress(FileNotFoundError):  # another worker, which was the last, has removed it: create it again
            if made:
                os.chmod(path, 0o700)  # the umask may have removed the owner's permissions
            return os.lstat(path)


def _open_folder(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o600)
        file.write(text.encode("utf-8", "surrogatepass"))


def _not_writable(path: str, problem: OSError) -> StorageFailed:
    return StorageFailed(
        f"the folder {path} of an attempt cannot be written: {problem.strerror}",
        advice="free space there, or set JOBDB_RUNTIME_DIR to another folder of your own",
    )


def _remove_if_stale(path: str, lock: str) -> bool:
    """Remove an attempt's folder unless its worker holds it, or a process of its job may be left."""
    hold = _open_folder(path)
    try:
        fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError while its worker holds it
        with suppress(FileNotFoundError):
            locked = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(locked, fcntl.LOCK_SH | fcntl.LOCK_NB)
            finally:
                os.close(locked)
        return _remove_tree(path)
    finally:
        os.close(hold)


def _remove_old_lock(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if max(info.st_mtime, info.st_ctime) < time.time() - LOCK_FILE_SEC:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                os.unlink(path)
    finally:
        os.close(fd)


def _remove_tree(path: str) -> bool:
    """Remove a folder with everything in it; return whether it is gone."""
    try:
        for name in ("prompt", "events", "context.json"):
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(f"{path}/{name}")
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        # The agent has put something in it. Its folders may be closed, or nested too deeply for shutil.
        with suppress(OSError, RecursionError):
            shutil.rmtree(path)
    return not os.path.lexists(path)
