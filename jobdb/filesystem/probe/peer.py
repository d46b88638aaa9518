"""The probe between two hosts that meet through the probed folder itself.

Called by `probe.probe_peer`. Both sides run the same code: they find each other, the one with the smaller
number leads and runs the checks of probe_checks.py, the other lends a hand (`RemoteHand`). Messages are files
that appear whole under names that nobody looked up before, found by listing: so neither a name cache nor
missing locks, which are what is being examined, can hinder the talk. Whoever can write to the folder can
write messages, so these can name a few operations on plain names in the scratch folder, and nothing else.
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

from ..placement import place
from . import record
from .checks import PEER_PLAN, Check, failed_check, run_plan
from .local import ProbeReport
from .parties import HandFailed, LocalHand

MEETING = ".jobdb-probe-meeting"
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


class _Letters:
    """The exchange of messages between two numbered parties, over a folder."""

    def __init__(self, scribe: LocalHand, me: str) -> None:
        self._scribe = scribe
        self.me = me
        self.other = ""
        self._written: list[str] = []

    def names(self) -> list[str]:
        return [str(name) for name in self._scribe.call("listing")]

    def write(self, name: str, content: dict[str, Any]) -> None:
        self._written.append(name)  # first: should an interrupt come, it is removed all the same
        self._scribe.call("publish", name=name, text=json.dumps(content))

    def read(self, name: str) -> dict[str, Any] | None:
        """The message, or None if there is none that can be understood."""
        text = self._scribe.call("read", name=name)
        try:
            content = json.loads(text or "")
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def send(self, number: int, content: dict[str, Any]) -> None:
        self.write(f"m.{self.me}.{self.other}.{number}", content)

    def receive(self, number: int, *, limit_sec: float) -> dict[str, Any]:
        """Waits for the other's message of that number; raises HandFailed with ETIMEDOUT."""
        name = f"m.{self.other}.{self.me}.{number}"
        end = time.monotonic() + limit_sec
        while time.monotonic() < end:
            if name in self.names() and (content := self.read(name)) is not None:
                self.forget(keep=1)
                return content
            time.sleep(_POLL_SEC)
        raise HandFailed("answer of the other host", errno.ETIMEDOUT)

    def forget(self, *, keep: int) -> None:
        """Removes own messages but the last ones, which the other may not have read yet."""
        while len(self._written) > keep:
            self._scribe.call("remove", name=self._written.pop(0))

    def remove_received(self) -> None:
        """Removes the other's last message, which only its reader can know to be read."""
        for name in self.names():
            if name.startswith(f"m.{self.other}.{self.me}."):
                self._scribe.call("remove", name=name)

    def wait_until_read(self, number: int, *, limit_sec: float) -> None:
        """Waits until the other has removed an own message of that number."""
        end = time.monotonic() + limit_sec
        with contextlib.suppress(HandFailed):  # the other may have removed the whole meeting by now
            while f"m.{self.me}.{self.other}.{number}" in self.names() and time.monotonic() < end:
                time.sleep(_POLL_SEC)


class RemoteHand:
    """The hand of the other host; its operations travel as messages."""

    def __init__(self, letters: _Letters) -> None:
        self._letters = letters
        self._number = 0

    def start(self, operation: str, **arguments: Any) -> None:
        self._number += 1
        self._letters.send(self._number, {"do": operation, "arguments": arguments})

    def finish(self) -> Any:
        reply = self._letters.receive(self._number, limit_sec=_ANSWER_LIMIT_SEC)
        if "errno" in reply:
            code = reply["errno"]
            raise HandFailed("the other host", code if type(code) is int and 0 < code < 4096 else errno.EPROTO)
        return reply.get("value")

    def call(self, operation: str, **arguments: Any) -> Any:
        self.start(operation, **arguments)
        return self.finish()

    def kill(self) -> None:
        self.call("kill")


def meet_and_check(folder: str | Path, *, name: str, timeout_sec: float) -> ProbeReport:
    """Meets another host in the folder and checks the folder with it; see `probe.probe_peer`."""
    began = time.monotonic()
    limit = min(_OPERATION_LIMIT_SEC, max(timeout_sec, 1.0))
    me = secrets.token_hex(6)
    peers: tuple[str, ...] = (name,)
    with LocalHand(folder, limit_sec=limit) as keeper:
        try:
            keeper.call("make_folder", name=MEETING)
            with LocalHand(folder, MEETING, limit_sec=limit) as scribe:
                letters = _Letters(scribe, me)
                try:
                    peers, checks = _meet(letters, keeper, folder, name, end=began + timeout_sec)
                finally:
                    with contextlib.suppress(HandFailed):
                        letters.forget(keep=0)
        except HandFailed as failure:
            checks = [failed_check("meeting", failure)]
        finally:
            with contextlib.suppress(HandFailed):
                keeper.call("remove_folder", name=MEETING, emptied=False)
        report = ProbeReport(os.fspath(folder), "peer", tuple(checks), time.monotonic() - began, peers)
        _record(report, keeper)
    return report


def _meet(
    letters: _Letters, keeper: LocalHand, folder: str | Path, name: str, *, end: float
) -> tuple[tuple[str, ...], list[Check]]:
    card = {"name": name, "identity": keeper.call("identity")}
    letters.write(f"hello.{letters.me}", card)
    other = _find_other(letters, card, end=end)
    if other is None:
        advice = f"run the same command on another host at the same time, for its path of {folder}"
        return (name,), [Check("hosts-meet", False, "no other host came to the folder in time", advice)]
    leads = letters.me < letters.other
    other_name = _printable(other.get("name"), 64)
    if other_name == name:
        other_name = f"{name} (2)"
    pair = (name, other_name)
    pair = (name, other_name)
    arena = f".jobdb-probe-{min(letters.me, letters.other)}"
    if leads:
        apart = other.get("identity") != card["identity"]
        return pair, _lead(letters, keeper, folder, arena, pair, apart=apart)
    checks = _follow(letters, folder, arena)
    if not all(check.ok for check in checks):
        with contextlib.suppress(HandFailed):  # the leader may have died and left it
            keeper.call("remove_folder", name=arena, emptied=True)
    return pair, checks


def _find_other(letters: _Letters, card: dict[str, Any], *, end: float) -> dict[str, Any] | None:
    """Finds one other party; the smaller number offers, the greater accepts one offer."""
    offered: set[str] = set()
    while time.monotonic() < end:
        for name in letters.names():
            kind, _, rest = name.partition(".")
            if kind == "hello" and rest > letters.me and rest not in offered:
                offered.add(rest)  # one that a killed probe left behind never answers, and does no harm
                letters.write(f"m.{letters.me}.{rest}.0", card)
            elif kind == "m" and rest.endswith(f".{letters.me}.0"):
                content = letters.read(name)
                if content is None:
                    continue
                letters.other = rest.split(".")[0]
                if letters.other < letters.me:
                    letters.send(0, card)
                return content
        time.sleep(_POLL_SEC)
    return None


def _lead(
    letters: _Letters, keeper: LocalHand, folder: str | Path, arena: str, pair: tuple[str, str], *, apart: bool
) -> list[Check]:
    remote = RemoteHand(letters)
    keeper.call("make_folder", name=arena)
    try:
        checks = _lead_checks(remote, folder, arena, pair, apart=apart)
        with contextlib.suppress(HandFailed):
            remote.call("end", checks=[check.as_dict() for check in checks])
    finally:
        with contextlib.suppress(HandFailed):
            letters.remove_received()
            keeper.call("remove_folder", name=arena, emptied=True)
    return checks


def _lead_checks(
    remote: RemoteHand, folder: str | Path, arena: str, pair: tuple[str, str], *, apart: bool
) -> list[Check]:
    if not apart:
        advice = "run it on another host; for two processes of one mount there is 'jobdb probe' without --peer"
        return [Check("hosts-meet", False, "both sides are the same mount of the same host", advice)]
    checks = [Check("hosts-meet", True, " and ".join(sorted(pair)) + " met in the folder")]
    with LocalHand(folder, arena, limit_sec=_OPERATION_LIMIT_SEC) as hand:
        end = time.monotonic() + CHECKS_LIMIT_SEC
        return checks + run_plan(PEER_PLAN, hand, remote, here=pair[0], there=pair[1], end=end)


def _follow(letters: _Letters, folder: str | Path, arena: str) -> list[Check]:
    end = time.monotonic() + CHECKS_LIMIT_SEC + _ANSWER_LIMIT_SEC
    number = 0
    with LocalHand(folder, arena, limit_sec=_OPERATION_LIMIT_SEC) as hand:
        while True:
            number += 1
            try:
                order = letters.receive(number, limit_sec=min(_ANSWER_LIMIT_SEC, end - time.monotonic()))
            except HandFailed as failure:
                return [failed_check("hosts-meet", failure)]
            if order.get("do") == "end":
                hand.close()
                letters.send(number, {"value": None})
                letters.wait_until_read(number, limit_sec=5.0)
                return _reported(order)
            letters.send(number, _obey(hand, order))


def _obey(hand: LocalHand, order: dict[str, Any]) -> dict[str, Any]:
    operation, arguments = order.get("do"), order.get("arguments")
    if not isinstance(operation, str) or operation not in _OPERATIONS or not isinstance(arguments, dict):
        return {"errno": errno.EINVAL}
    names = [arguments[key] for key in ("name", "src", "dst") if key in arguments]
    if not all(isinstance(name, str) and _PLAIN_NAME.fullmatch(name) for name in names):
        return {"errno": errno.EINVAL}
    try:
        if operation == "kill":
            hand.kill()
            return {"value": None}
        return {"value": hand.call(operation, **arguments)}
    except HandFailed as failure:
        return {"errno": failure.errno}
    except TypeError:  # an argument that no operation has
        return {"errno": errno.EINVAL}


def _reported(order: dict[str, Any]) -> list[Check]:
    """The leader's findings; they will be shown on a terminal, so nothing but plain text is let through."""
    arguments = order.get("arguments")
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


def _record(report: ProbeReport, keeper: LocalHand) -> None:
    """Leaves word of a probe that passed where a database needs it, and takes back what no longer holds."""
    placement = place(report.folder)
    if not placement.needs_peer_probe:
        return
    name = record.record_name(placement)
    with contextlib.suppress(HandFailed):
        if not report.ok:
            keeper.call("remove", name=name)
        elif not keeper.call("exists", name=name):
            keeper.call("publish", name=name, text=json.dumps({"peers": list(report.peers)}) + "\n")
