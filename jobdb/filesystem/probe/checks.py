"""What a folder must do for a rollback journal to be safe, as checks between two parties.

Used by probe.py (two processes) and probe_peer.py (two hosts). Each check says what it saw. May call nothing
but the hands it is given. The order of events in each is that of SQLite (https://sqlite.org/lockingv3.html).
"""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .parties import Party, PartyError

LOCKED_FILE = "locked"
_COUNT_SEC = 0.7  # long enough for the two to overlap, though the other host starts a little later

_LOCKS_ADVICE = (
    "locks do not reach everybody: on NFS mount without 'nolock' and with 'local_lock=none', on SMB without "
    "'nobrl'; where that cannot be had, keep the database on a local disk (tickets over MQTT) or use postgresql://"
)
_NO_LOCK_MANAGER = (
    "the server has no lock manager for this mount (ENOLCK): start lockd and rpc.statd on server and client, "
    "or mount with NFS version 4, which needs neither"
)
_CACHE_ADVICE = "mount with 'lookupcache=none' (NFS), or without name cache and with 'cache=none' (SMB, 9p)"
_DATA_ADVICE = "this mount serves old data: mount with 'cache=none' (SMB, 9p) and without 'nocto' (NFS)"
_HANGS_ADVICE = "no answer: see whether the server of the file system, and the other host, are up"
_OTHER_ADVICE = "see that the folder is writable and has space and inodes left"


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: stable name, such as "locks-exclude".
        ok: whether the folder did what it must.
        detail: what was seen.
        advice: what to do about it, None when ok.
    """

    name: str
    ok: bool
    detail: str
    advice: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)


class _CheckFailed(Exception):
    """What a check saw that must not be."""


def _expect(seen: bool, problem: str) -> None:
    if not seen:
        raise _CheckFailed(problem)


def locks_exclude(a: Party, b: Party) -> str:
    """Nobody gets in beside a writer; readers share and keep a writer out."""
    _expect(a.call("lock", name=LOCKED_FILE, kind="write"), "a free lock was refused")
    for kind in ("write", "read"):
        got = b.call("lock", name=LOCKED_FILE, kind=kind)
        _expect(not got, f"a {kind} lock was granted while another party held the write lock")
    a.call("unlock", name=LOCKED_FILE)
    _expect(a.call("lock", name=LOCKED_FILE, kind="read"), "a free read lock was refused")
    _expect(b.call("lock", name=LOCKED_FILE, kind="read"), "two readers could not share")
    got = b.call("lock", name=LOCKED_FILE, kind="write")
    _expect(not got, "a write lock was granted while another party was reading")
    b.call("unlock", name=LOCKED_FILE)
    a.call("unlock", name=LOCKED_FILE)
    return "write and read locks exclude as they should"


def lock_handed_over(a: Party, b: Party) -> str:
    """What one gives back the other gets."""
    _expect(a.call("lock", name=LOCKED_FILE, kind="write"), "a free lock was refused")
    _expect(not b.call("lock", name=LOCKED_FILE, kind="write"), "the lock was granted twice")
    a.call("unlock", name=LOCKED_FILE)
    _wait_for_lock(b, limit_sec=5.0, problem="a lock that was given back was still refused")
    b.call("unlock", name=LOCKED_FILE)
    return "a lock given back can be taken at once"


def killed_holder_lets_go(a: Party, b: Party) -> str:
    """The lock of a process that was killed is free again."""
    _expect(a.call("lock", name=LOCKED_FILE, kind="write"), "a free lock was refused")
    _expect(not b.call("lock", name=LOCKED_FILE, kind="write"), "the lock was granted twice")
    a.kill()
    waited = _wait_for_lock(b, limit_sec=10.0, problem="the lock of a killed process was still held")
    b.call("unlock", name=LOCKED_FILE)
    a.call("open", name=LOCKED_FILE)
    return f"the lock of a killed process was free after {waited:.1f} s"


def writes_seen(a: Party, b: Party) -> str:
    """What one wrote under the lock the other reads under the lock, though it had read the place before."""
    for text in ("first!", "second"):
        for party, write in ((a, True), (b, False)):
            _wait_for_lock(party, limit_sec=5.0, problem="a free lock was refused")
            if write:
                party.call("write_kept", name=LOCKED_FILE, text=text)
            else:
                got = party.call("read_kept", name=LOCKED_FILE, length=len(text))
                _expect(got == text, f"another party wrote {text!r}, read was {got!r}")
            party.call("unlock", name=LOCKED_FILE)
    return "what one party writes under the lock, the other reads"


def journal_seen(a: Party, b: Party) -> str:
    """A writer makes its journal and dies: the next one must find it, though it had looked in vain before."""
    journal = _unused_journal_name()
    _expect(not b.call("exists", name=journal), "a file is there that nobody made")
    _expect(a.call("lock", name=LOCKED_FILE, kind="write"), "a free lock was refused")
    a.call("create", name=journal, text="pages")
    a.kill()
    _wait_for_lock(b, limit_sec=10.0, problem="the lock of a killed process was still held")
    seen = b.call("exists", name=journal)
    b.call("unlock", name=LOCKED_FILE)
    a.call("open", name=LOCKED_FILE)
    a.call("remove", name=journal)
    _expect(seen, "a journal left by a killed writer was not seen: half-written pages would be read as good")
    return "a journal left by a killed writer is seen at once"


def removed_journal_gone(a: Party, b: Party) -> str:
    """Removing the journal is the commit: the next one must not find it any more."""
    journal = _unused_journal_name()
    _wait_for_lock(a, limit_sec=5.0, problem="a free lock was refused")
    a.call("create", name=journal, text="pages")
    b.call("exists", name=journal)
    a.call("remove", name=journal)
    a.call("unlock", name=LOCKED_FILE)
    _wait_for_lock(b, limit_sec=5.0, problem="a free lock was refused")
    content = b.call("read", name=journal)
    b.call("unlock", name=LOCKED_FILE)
    _expect(content is None, "a removed journal could still be opened: a committed write would be undone")
    return "a removed journal is gone at once"


def rename_seen(a: Party, b: Party) -> str:
    """A file put in the place of another is the one found by name."""
    a.call("create", name="named", text="old")
    _expect(b.call("read", name="named") == "old", "a new file was not seen")
    a.call("create", name="named.new", text="new")
    a.call("rename", src="named.new", dst="named")
    found = b.call("read", name="named")
    a.call("remove", name="named")
    _expect(found == "new", f"after a rename the name led to {found!r}")
    return "a file renamed into place is found by its name"


def nothing_lost(a: Party, b: Party) -> str:
    """Both count in one file under the lock, at the same time; the sum must be there."""
    a.call("write_kept", name=LOCKED_FILE, text="0" * 20)
    for party in (a, b):
        party.start("count", name=LOCKED_FILE, seconds=_COUNT_SEC)
    acknowledged = a.finish() + b.finish()
    _wait_for_lock(a, limit_sec=5.0, problem="a free lock was refused")
    found = str(a.call("read_kept", name=LOCKED_FILE, length=20))
    a.call("unlock", name=LOCKED_FILE)
    _expect(found == f"{acknowledged:020}", f"{acknowledged} additions were made, found was {found!r}")
    _expect(acknowledged > 0, "no addition was possible in time")
    return f"{acknowledged} additions of two writers at once, none lost"


def _unused_journal_name() -> str:
    """A journal's name that no party has looked up before: an old answer must not decide a check."""
    return f"{secrets.token_hex(4)}-journal"


def _wait_for_lock(party: Party, *, limit_sec: float, problem: str) -> float:
    began = time.monotonic()
    while not party.call("lock", name=LOCKED_FILE, kind="write"):
        if time.monotonic() - began > limit_sec:
            raise _CheckFailed(problem)
        time.sleep(0.02)
    return time.monotonic() - began


CheckPlan = Iterable[tuple[str, Callable[[Party, Party], str], str, bool]]

_COMMON: tuple[tuple[str, Callable[[Party, Party], str], str, bool], ...] = (
    ("locks-exclude", locks_exclude, _LOCKS_ADVICE, True),
    ("lock-handed-over", lock_handed_over, _LOCKS_ADVICE, True),
    ("killed-holder-lets-go", killed_holder_lets_go, _LOCKS_ADVICE, True),
    ("writes-seen", writes_seen, _DATA_ADVICE, True),
    ("journal-seen", journal_seen, _CACHE_ADVICE, True),
    ("removed-journal-gone", removed_journal_gone, _CACHE_ADVICE, True),
)
_LOST_UPDATE_CHECK = ("nothing-lost", nothing_lost, _LOCKS_ADVICE, False)

# name, check, advice when it fails, whether it is run in the other direction too
LOCAL_PLAN: CheckPlan = (
    *((name, check, advice, False) for name, check, advice, _ in _COMMON),
    ("rename-seen", rename_seen, _CACHE_ADVICE, False),
    _LOST_UPDATE_CHECK,
)
# Renames are left out between hosts: SQLite needs none, and good mounts ('lookupcache=pos') may fail there.
PEER_PLAN: CheckPlan = (*_COMMON, _LOST_UPDATE_CHECK)


def run_plan(plan: CheckPlan, a: Party, b: Party, *, first_label: str, second_label: str, end: float) -> list[Check]:
    """Runs the checks, in both directions where that tells more.

    Args:
        plan: LOCAL_PLAN or PEER_PLAN.
        a: one party.
        b: the other party.
        first_label: what to call the first party.
        second_label: what to call the second party.
        end: reading of the monotonic clock, in seconds, after which no further check begins.

    Returns:
        The outcomes. After a lock manager that is down, a party that does not answer, or the end of the
        time, the rest is left out and the last outcome says so.
    """
    checks: list[Check] = []
    clean = False
    for name, check, advice, both_directions in plan:
        directions = (
            [(a, b, first_label, second_label), (b, a, second_label, first_label)]
            if both_directions
            else [(a, b, first_label, second_label)]
        )
        for first, second, first_name, second_name in directions:
            label = f"{name}:{first_name}->{second_name}" if both_directions else name
            if time.monotonic() > end:
                checks.append(Check("time", False, f"the time was over before {label}", "give it more time"))
                return checks
            try:
                if not clean:
                    _reset_locks(a, b)
                clean = False
                checks.append(Check(label, True, check(first, second)))
                clean = True
            except _CheckFailed as problem:
                checks.append(Check(label, False, str(problem), advice))
            except PartyError as failure:
                checks.append(failed_check(label, failure))
                return checks
            except (TypeError, ValueError, OverflowError):
                checks.append(failed_check(label, PartyError("answer of the other party", errno.EPROTO)))
                return checks
    return checks


def _reset_locks(a: Party, b: Party) -> None:
    """Opens the file, and gives back what a failed check may have left locked."""
    for party in (a, b):
        party.call("open", name=LOCKED_FILE)
        party.call("unlock", name=LOCKED_FILE)


def failed_check(name: str, failure: PartyError | None) -> Check:
    """The outcome of a check that an operation ended; without a failure, of locks that did not exclude."""
    if failure is None:
        return Check(name, False, "a lock did not exclude a second owner, or was not free again", _LOCKS_ADVICE)
    advice = {
        errno.ENOLCK: _NO_LOCK_MANAGER,
        errno.EOPNOTSUPP: _LOCKS_ADVICE,
        errno.ENOSYS: _LOCKS_ADVICE,
        errno.ETIMEDOUT: _HANGS_ADVICE,
    }.get(failure.errno, _OTHER_ADVICE)
    return Check(name, False, str(failure), advice)
