"""The failures of a probe's operations, and the advice for each.

Called by the other modules of the probe, which run the operations; calls only ``report``.
"""

from __future__ import annotations

import errno
import os

from .report import Check

LOCKS_ADVICE = (
    "locks do not reach all hosts: on NFS mount without 'nolock' and with 'local_lock=none', on SMB without "
    "'nobrl'; where that is not possible, keep the database on a local disk (tickets over MQTT) or use postgresql://"
)
_NO_LOCK_MANAGER = (
    "the server has no lock manager for this mount (ENOLCK): start lockd and rpc.statd on server and client, "
    "or mount with NFS version 4, which needs neither"
)
CACHE_ADVICE = "mount with 'lookupcache=none' (NFS), or without name cache and with 'cache=none' (SMB, 9p)"
DATA_ADVICE = "this mount serves old data: mount with 'cache=none' (SMB, 9p) and without 'nocto' (NFS)"
_HANGS_ADVICE = "no answer: check that the server of the file system and the other host are up"
_OTHER_ADVICE = "make sure that the folder is writable and has space and inodes left"


class PartyError(Exception):
    """A failed operation of a party; `errno` is the reason, ETIMEDOUT if no answer came in time."""

    def __init__(self, operation: str, code: int) -> None:
        super().__init__(f"{operation}: {errno.errorcode.get(code, code)} ({os.strerror(code)})")
        self.errno = code


def failed_check(name: str, failure: PartyError | None) -> Check:
    """Return the outcome of a check that a failed operation ended; None stands for locks that did not exclude."""
    if failure is None:
        return Check(name, False, "a lock did not exclude a second owner, or was not free again", LOCKS_ADVICE)
    advice = {
        errno.ENOLCK: _NO_LOCK_MANAGER,
        errno.EOPNOTSUPP: LOCKS_ADVICE,
        errno.ENOSYS: LOCKS_ADVICE,
        errno.ETIMEDOUT: _HANGS_ADVICE,
    }.get(failure.errno, _OTHER_ADVICE)
    return Check(name, False, str(failure), advice)
