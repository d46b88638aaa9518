"""The probe between two hosts that meet through the probed folder itself: `jobdb probe DIR --peer NAME`.

Called by the command line. Both sides run the same code: they find each other, the one with the smaller id leads and
runs the checks of checks.py, and the other executes operations for it (`RemoteParty`). Messages are files that appear
whole, under names that nobody has looked up before, and are found by listing: so neither a name cache nor missing
locks, which the probe tests for, can disturb the exchange. Anybody who can write to the folder can write messages, so
these may name only a few operations on plain names in the scratch folder.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

from ..placement import placement_for
from . import record
from .checks import PEER_PLAN, run_plan
from .failures import PartyError, failed_check
from .parties import LocalParty
from .report import Check, ProbeReport, with_export_check

PEER_TIMEOUT_SEC = 60.0
RENDEZVOUS_FOLDER = ".jobdb-probe-meeting"
CHECKS_LIMIT_SEC = 45.0
_OPERATION_LIMIT_SEC = 10.0
_ANSWER_LIMIT_SEC = 15.0
_POLL_SEC = 0.02
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")
_OPERATIONS = frozenset(
    [
        "open",
        "lock",
        "unlock",
        "exists",
        "create",
        "read",
        "read_kept",
        "write_kept",
        "count",
        "remove",
        "kill",
    ]
)


class _Mailbox:
    """The exchange of messages between two parties through a folder.

    Attributes:
        own_id: this party's id.
        peer_id: the other party's id, "" until it is found.
    """

    def __init__(self, mail_party: LocalParty, own_id: str) -> None:
        self._party = mail_party
        self.own_id = own_id
        self.peer_id = ""
        self._sent_files: list[str] = []

    def names(self) -> list[str]:
        return [str(name) for name in self._party.call("listing")]

    def write(self, name: str, content: dict[str, Any]) -> None:
        self._sent_files.append(name)  # first: so it is removed even if an interrupt comes
        self._party.call("publish", name=name, text=json.dumps(content))

    def read(self, name: str) -> dict[str, Any] | None:
        """Read a message; return None if there is no valid one."""
        text = self._party.call("read", name=name)
        try:
            content = json.loads(text or "")
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def send(self, number: int, content: dict[str, Any]) -> None:
        self.write(f"m.{self.own_id}.{self.peer_id}.{number}", content)

    def receive(self, number: int, *, limit_sec: float) -> dict[str, Any]:
        """Wait for the peer's message with a number; raise PartyError with ETIMEDOUT if none arrives."""
        name = f"m.{self.peer_id}.{self.own_id}.{number}"
        end = time.monotonic() + limit_sec
        while time.monotonic() < end:
            if name in self.names() and (content := self.read(name)) is not None:
                self.remove_sent(keep=1)
                return content
            time.sleep(_POLL_SEC)
        raise PartyError("answer of the other host", errno.ETIMEDOUT)

    def remove_sent(self, *, keep: int) -> None:
        """Remove this party's messages except the last ones, which the peer may not have read yet."""
        while len(self._sent_files) > keep:
            self._party.call("remove", name=self._sent_files.pop(0))

    def remove_received(self) -> None:
        """Remove the peer's last message: only its reader knows that it was read."""
        for name in self.names():
            if name.startswith(f"m.{self.peer_id}.{self.own_id}."):
                self._party.call("remove", name=name)

    def wait_until_read(self, number: int, *, limit_sec: float) -> None:
        """Wait until the peer has removed this party's message with that number."""
        end = time.monotonic() + limit_sec
        with contextlib.suppress(PartyError):  # the peer may have removed the whole folder by now
            while f"m.{self.own_id}.{self.peer_id}.{number}" in self.names() and time.monotonic() < end:
                time.sleep(_POLL_SEC)


class RemoteParty:
    """The party on the other host; its operations travel as messages."""

    def __init__(self, mailbox: _Mailbox) -> None:
        self._mailbox = mailbox
        self._number = 0

    def start(self, operation: str, **arguments: Any) -> None:
        self._number += 1
        self._mailbox.send(self._number, {"do": operation, "arguments": arguments})

    def finish(self) -> Any:
        reply = self._mailbox.receive(self._number, limit_sec=_ANSWER_LIMIT_SEC)
        if "errno" in reply:
            code = reply["errno"]
            raise PartyError("the other host", code if type(code) is int and 0 < code < 4096 else errno.EPROTO)
        return reply.get("value")

    def call(self, operation: str, **arguments: Any) -> Any:
        self.start(operation, **arguments)
        return self.finish()

    def kill(self) -> None:
        self.call("kill")


def probe_peer(folder: str | Path, *, name: str, timeout_sec: float = PEER_TIMEOUT_SEC) -> ProbeReport:
    """Check a folder between this host and another one that runs the same probe at the same time.

    The two meet through the folder itself, so they need no other connection.

    Args:
        folder: an existing folder that both hosts see, each under a path of its own.
        name: the name of this host in the report, such as its host name.
        timeout_sec: longest wait for the other host, in seconds; the checks take up to 45 s more.

    Returns:
        The report; both hosts get the same checks, and each adds its own finding about an NFS export. If the folder
        needs a probe between hosts (`Placement.needs_peer_probe`), a probe that passed is recorded in the folder for
        this host and mount.
    """
    began = time.monotonic()
    limit = min(_OPERATION_LIMIT_SEC, max(timeout_sec, 1.0))
    peers: tuple[str, ...] = (name,)
    with LocalParty(folder, limit_sec=limit) as folder_party:
        try:
            folder_party.call("make_folder", name=RENDEZVOUS_FOLDER)
            with LocalParty(folder, RENDEZVOUS_FOLDER, limit_sec=limit) as mail_party:
                mailbox = _Mailbox(mail_party, secrets.token_hex(6))
                try:
                    peers, checks = _rendezvous(mailbox, folder_party, folder, name, end=began + timeout_sec)
                finally:
                    with contextlib.suppress(PartyError):
                        mailbox.remove_sent(keep=0)
        except PartyError as failure:
            checks = [failed_check("meeting", failure)]
        finally:
            with contextlib.suppress(PartyError):
                folder_party.call("remove_folder", name=RENDEZVOUS_FOLDER, recursive=False)
        report = ProbeReport(os.fspath(folder), "peer", tuple(checks), time.monotonic() - began, peers)
        _update_record(report, folder_party)
    return with_export_check(report)


def _rendezvous(
    mailbox: _Mailbox, folder_party: LocalParty, folder: str | Path, name: str, *, end: float
) -> tuple[tuple[str, ...], list[Check]]:
    hello = {"name": name, "identity": folder_party.call("identity")}
    mailbox.write(f"hello.{mailbox.own_id}", hello)
    peer_hello = _find_peer(mailbox, hello, end=end)
    if peer_hello is None:
        advice = f"run the same command on another host at the same time, for its path of {folder}"
        return (name,), [Check("hosts-meet", False, "no other host came to the folder in time", advice)]
    is_leader = mailbox.own_id < mailbox.peer_id
    other_name = _printable(peer_hello.get("name"), 64)
    if other_name == name:
        other_name = f"{name} (2)"
    pair = (name, other_name)
    scratch = f".jobdb-probe-{min(mailbox.own_id, mailbox.peer_id)}"
    if is_leader:
        distinct_hosts = peer_hello.get("identity") != hello["identity"]
        return pair, _run_leader(mailbox, folder_party, folder, scratch, pair, distinct_hosts=distinct_hosts)
    checks = _run_follower(mailbox, folder, scratch)
    if not all(check.ok for check in checks):
        with contextlib.suppress(PartyError):  # the leader may have died and left it behind
            folder_party.call("remove_folder", name=scratch, recursive=True)
    return pair, checks


def _find_peer(mailbox: _Mailbox, hello: dict[str, Any], *, end: float) -> dict[str, Any] | None:
    """Find one other party: the smaller id offers, the greater accepts one offer."""
    offered: set[str] = set()
    while time.monotonic() < end:
        for name in mailbox.names():
            kind, _, rest = name.partition(".")
            if kind == "hello" and rest > mailbox.own_id and rest not in offered:
                offered.add(rest)  # one that a killed probe has left behind never answers, and does no harm
                mailbox.write(f"m.{mailbox.own_id}.{rest}.0", hello)
            elif kind == "m" and rest.endswith(f".{mailbox.own_id}.0"):
                content = mailbox.read(name)
                if content is None:
                    continue
                mailbox.peer_id = rest.split(".")[0]
                if mailbox.peer_id < mailbox.own_id:
                    mailbox.send(0, hello)
                return content
        time.sleep(_POLL_SEC)
    return None


def _run_leader(
    mailbox: _Mailbox,
    folder_party: LocalParty,
    folder: str | Path,
    scratch: str,
    pair: tuple[str, str],
    *,
    distinct_hosts: bool,
) -> list[Check]:
    remote = RemoteParty(mailbox)
    folder_party.call("make_folder", name=scratch)
    try:
        checks = _run_leader_checks(remote, folder, scratch, pair, distinct_hosts=distinct_hosts)
        with contextlib.suppress(PartyError):
            remote.call("end", checks=[check.as_dict() for check in checks])
    finally:
        with contextlib.suppress(PartyError):
            mailbox.remove_received()
            folder_party.call("remove_folder", name=scratch, recursive=True)
    return checks


def _run_leader_checks(
    remote: RemoteParty, folder: str | Path, scratch: str, pair: tuple[str, str], *, distinct_hosts: bool
) -> list[Check]:
    if not distinct_hosts:
        advice = "run it on another host; for two processes of one mount there is 'jobdb probe' without --peer"
        return [Check("hosts-meet", False, "both sides are the same mount of the same host", advice)]
    checks = [Check("hosts-meet", True, " and ".join(sorted(pair)) + " met in the folder")]
    with LocalParty(folder, scratch, limit_sec=_OPERATION_LIMIT_SEC) as party:
        end = time.monotonic() + CHECKS_LIMIT_SEC
        return checks + run_plan(PEER_PLAN, party, remote, first_label=pair[0], second_label=pair[1], end=end)


def _run_follower(mailbox: _Mailbox, folder: str | Path, scratch: str) -> list[Check]:
    end = time.monotonic() + CHECKS_LIMIT_SEC + _ANSWER_LIMIT_SEC
    number = 0
    with LocalParty(folder, scratch, limit_sec=_OPERATION_LIMIT_SEC) as party:
        while True:
            number += 1
            try:
                command = mailbox.receive(number, limit_sec=min(_ANSWER_LIMIT_SEC, end - time.monotonic()))
            except PartyError as failure:
                return [failed_check("hosts-meet", failure)]
            if command.get("do") == "end":
                party.close()
                mailbox.send(number, {"value": None})
                mailbox.wait_until_read(number, limit_sec=5.0)
                return _parse_checks(command)
            mailbox.send(number, _execute(party, command))


def _execute(party: LocalParty, command: dict[str, Any]) -> dict[str, Any]:
    operation, arguments = command.get("do"), command.get("arguments")
    if not isinstance(operation, str) or operation not in _OPERATIONS or not isinstance(arguments, dict):
        return {"errno": errno.EINVAL}
    names = [arguments[key] for key in ("name", "src", "dst") if key in arguments]
    if not all(isinstance(name, str) and _PLAIN_NAME.fullmatch(name) for name in names):
        return {"errno": errno.EINVAL}
    try:
        if operation == "kill":
            party.kill()
            return {"value": None}
        return {"value": party.call(operation, **arguments)}
    except PartyError as failure:
        return {"errno": failure.errno}
    except TypeError:  # an argument that no operation has
        return {"errno": errno.EINVAL}


def _parse_checks(command: dict[str, Any]) -> list[Check]:
    """Parse the leader's findings. They will be shown on a terminal, so only printable text is kept."""
    arguments = command.get("arguments")
    found = arguments.get("checks") if isinstance(arguments, dict) else None
    if not isinstance(found, list) or not all(isinstance(check, dict) for check in found):
        return [Check("hosts-meet", False, "the other host's report cannot be read", "run the probe again")]
    return [
        Check(
            name=_printable(check.get("name"), 200),
            ok=check.get("ok") is True,
            detail=_printable(check.get("detail"), 2000),
            advice=_printable(check["advice"], 2000) if check.get("advice") else None,
        )
        for check in found
    ]


def _printable(text: object, length: int) -> str:
    return "".join(character for character in str(text)[:length] if character.isprintable())


def _update_record(report: ProbeReport, folder_party: LocalParty) -> None:
    """Record a probe that passed, if a database needs it; remove the record if the probe failed."""
    placement = placement_for(report.folder)
    if not placement.needs_peer_probe:
        return
    name = record.record_name(placement)
    with contextlib.suppress(PartyError):
        if not report.ok:
            folder_party.call("remove", name=name)
        elif not folder_party.call("exists", name=name):
            folder_party.call("publish", name=name, text=json.dumps({"peers": list(report.peers)}) + "\n")
