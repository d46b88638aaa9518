"""The requirements that a rollback journal has of a folder, as checks between two parties.

Used by local.py (two processes) and peer.py (two hosts). Each check returns what it observed, and calls only the
parties that it is given. The order of operations is that of SQLite (https://sqlite.org/lockingv3.html).
"""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .failures import CACHE_ADVICE, DATA_ADVICE, LOCKS_ADVICE, PartyError, failed_check
from .parties import Party
from .report import Check

LOCKED_FILE = "locked"
_COUNT_SEC = 0.7  # long enough for the two to overlap although the other host starts a little later


class _CheckFailed(Exception):
    """An observation that makes a check fail."""


def _expect(seen: bool, problem: str) -> None:
    if not seen:
        raise _CheckFailed(problem)


def locks_exclude(a: Party, b: Party) -> str:
    """Check that a write lock excludes everybody, and that readers share and exclude a writer."""
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
    """Check that a released lock can be acquired by the other party."""
    _expect(a.call("lock", name=LOCKED_FILE, kind="write"), "a free lock was refused")
    _expect(not b.call("lock", name=LOCKED_FILE, kind="write"), "the lock was granted twice")
    a.call("unlock", name=LOCKED_FILE)
    _wait_for_lock(b, limit_sec=5.0, problem="a released lock was still refused")
    b.call("unlock", name=LOCKED_FILE)
    return "a released lock can be acquired at once"


def killed_holder_lets_go(a: Party, b: Party) -> str:
    """Check that the lock of a killed process is released."""
    _expect(a.call("lock", name=LOCKED_FILE, kind="write"), "a free lock was refused")
    _expect(not b.call("lock", name=LOCKED_FILE, kind="write"), "the lock was granted twice")
    a.kill()
    waited = _wait_for_lock(b, limit_sec=10.0, problem="the lock of a killed process was still held")
    b.call("unlock", name=LOCKED_FILE)
    a.call("open", name=LOCKED_FILE)
    return f"the lock of a killed process was free after {waited:.1f} s"


def writes_seen(a: Party, b: Party) -> str:
    """Check that a write under the lock is read by the other party, even if it has read the same bytes before."""
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
    """Check that the journal of a writer that died is found by the next one, which had looked for it before."""
    journal = _unused_journal_name()
    _expect(not b.call("exists", name=journal), "a file exists that nobody created")
    _expect(a.call("lock", name=LOCKED_FILE, kind="write"), "a free lock was refused")
    a.call("create", name=journal, text="pages")
    a.kill()
    _wait_for_lock(b, limit_sec=10.0, problem="the lock of a killed process was still held")
    seen = b.call("exists", name=journal)
    b.call("unlock", name=LOCKED_FILE)
    a.call("open", name=LOCKED_FILE)
    a.call("remove", name=journal)
    _expect(seen, "the journal of a killed writer was not found: half-written pages would be read as valid")
    return "the journal of a killed writer is found at once"


def removed_journal_gone(a: Party, b: Party) -> str:
    """Check that a removed journal is not found by the next writer: removing it is the commit."""
    journal = _unused_journal_name()
    _wait_for_lock(a, limit_sec=5.0, problem="a free lock was refused")
    a.call("create", name=journal, text="pages")
    b.call("exists", name=journal)
    a.call("remove", name=journal)
    a.call("unlock", name=LOCKED_FILE)
    _wait_for_lock(b, limit_sec=5.0, problem="a free lock was refused")
    content = b.call("read", name=journal)
    b.call("unlock", name=LOCKED_FILE)
    _expect(content is None, "a removed journal could still be opened: a committed write would be rolled back")
    return "a removed journal is gone at once"


def rename_seen(a: Party, b: Party) -> str:
    """Check that a file renamed over another is the one found by that name."""
    a.call("create", name="named", text="old")
    _expect(b.call("read", name="named") == "old", "a new file was not seen")
    a.call("create", name="named.new", text="new")
    a.call("rename", src="named.new", dst="named")
    found = b.call("read", name="named")
    a.call("remove", name="named")
    _expect(found == "new", f"after a rename the name led to {found!r}")
    return "a file renamed into place is found by its name"


def nothing_lost(a: Party, b: Party) -> str:
    """Check that no update is lost when both increment a number under the lock at the same time."""
    a.call("write_kept", name=LOCKED_FILE, text="0" * 20)
    for party in (a, b):
        party.start("count", name=LOCKED_FILE, seconds=_COUNT_SEC)
    acknowledged = a.finish() + b.finish()
    _wait_for_lock(a, limit_sec=5.0, problem="a free lock was refused")
    found = str(a.call("read_kept", name=LOCKED_FILE, length=20))
    a.call("unlock", name=LOCKED_FILE)
    _expect(found == f"{acknowledged:020}", f"{acknowledged} increments were made, found was {found!r}")
    _expect(acknowledged > 0, "no increment was possible in time")
    return f"{acknowledged} increments of two concurrent writers, none lost"


def _unused_journal_name() -> str:
    """Return a journal name that no party has looked up before: a cached answer must not decide a check."""
    return f"{secrets.token_hex(4)}-journal"


def _wait_for_lock(party: Party, *, limit_sec: float, problem: str) -> float:
    began = time.monotonic()
    while not party.call("lock", name=LOCKED_FILE, kind="write"):
        if time.monotonic() - began > limit_sec:
            raise _CheckFailed(problem)
        time.sleep(0.02)
    return time.monotonic() - began


class CheckSpec(NamedTuple):
    """One check of a plan.

    Attributes:
        name: stable name, as in `Check`.
        run: the check; it returns what it observed, and raises if the folder is unsafe.
        advice: what to do when it fails.
        both_directions: also run it with the parties exchanged.
    """

    name: str
    run: Callable[[Party, Party], str]
    advice: str
    both_directions: bool = False


_COMMON = (
    CheckSpec("locks-exclude", locks_exclude, LOCKS_ADVICE, both_directions=True),
    CheckSpec("lock-handed-over", lock_handed_over, LOCKS_ADVICE, both_directions=True),
    CheckSpec("killed-holder-lets-go", killed_holder_lets_go, LOCKS_ADVICE, both_directions=True),
    CheckSpec("writes-seen", writes_seen, DATA_ADVICE, both_directions=True),
    CheckSpec("journal-seen", journal_seen, CACHE_ADVICE, both_directions=True),
    CheckSpec("removed-journal-gone", removed_journal_gone, CACHE_ADVICE, both_directions=True),
)
_LOST_UPDATE_CHECK = CheckSpec("nothing-lost", nothing_lost, LOCKS_ADVICE)

LOCAL_PLAN = (
    *(check._replace(both_directions=False) for check in _COMMON),
    CheckSpec("rename-seen", rename_seen, CACHE_ADVICE),
    _LOST_UPDATE_CHECK,
)
# Renames are not checked between hosts: SQLite needs none, and safe mounts ('lookupcache=pos') may fail them.
PEER_PLAN = (*_COMMON, _LOST_UPDATE_CHECK)


def run_plan(
    plan: Iterable[CheckSpec], a: Party, b: Party, *, first_label: str, second_label: str, end: float
) -> list[Check]:
    """Run the checks, in both directions if that matters.

    Args:
        plan: LOCAL_PLAN or PEER_PLAN.
        a: the first party.
        b: the second party.
        first_label: the first party's name in the labels.
        second_label: the second party's name.
        end: reading of the monotonic clock, in seconds, after which no further check begins.

    Returns:
        The outcomes. If an operation fails (the lock manager is down, or a party does not answer) or the time is over,
        the remaining checks are skipped and the last outcome says so.
    """
    checks: list[Check] = []
    clean = False
    for spec in plan:
        directions = [(a, b, f"{first_label}->{second_label}")]
        if spec.both_directions:
            directions.append((b, a, f"{second_label}->{first_label}"))
        for first, second, direction in directions:
            label = f"{spec.name}:{direction}" if spec.both_directions else spec.name
            if time.monotonic() > end:
                checks.append(Check("time", False, f"the time was over before {label}", "allow more time"))
                return checks
            try:
                if not clean:
                    _reset_locks(a, b)
                clean = False
                checks.append(Check(label, True, spec.run(first, second)))
                clean = True
            except _CheckFailed as problem:
                checks.append(Check(label, False, str(problem), spec.advice))
            except PartyError as failure:
                checks.append(failed_check(label, failure))
                return checks
            except (TypeError, ValueError, OverflowError):
                checks.append(failed_check(label, PartyError("answer of the other party", errno.EPROTO)))
                return checks
    return checks


def _reset_locks(a: Party, b: Party) -> None:
    """Open the file, and release locks that a failed check may have left."""
    for party in (a, b):
        party.call("open", name=LOCKED_FILE)
        party.call("unlock", name=LOCKED_FILE)
