"""The field ``jobdb_state`` of a record: the state of a job that the record's other fields cannot express.

Created by the exporter if needed (`make_state`), parsed with the record (`parse_state`), written to the database by
``importing/state_writer.py``. Pure.

It preserves trust across an export and its import: that events must be signed although the record has no token, which
keys are revoked, which attempt is current, and what each subscriber has accepted. The old scripts keep unknown fields.
A state that does not have exactly this form makes its record damaged: accepting a part of it would weaken protection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ...core.protocol.limits import MAX_KID, MAX_SEQ
from ...core.registration import RESERVED_FIELD
from .damage import Damaged, DamageKind, quoted

Json = Any
State = dict[str, Json]
"""The field's value in its canonical form; plain values, so that processes can exchange it."""

STATE_FIELD = RESERVED_FIELD
VERSION = 1
MAX_SUBSCRIBER_CHARS = 256
MAX_KEYS = 1000
MAX_SUBSCRIBERS = 10_000
MAX_SKIPPED = 20_000
"""The maximum for all subscribers of a job together. Each is a row to write, and a key is a secret to seal."""

_MEMBERS = frozenset({"version", "auth_required", "kid", "keys", "attempt", "subscribers"})
_KEY_MEMBERS = frozenset({"kid", "created_ms", "expires_ms", "revoked_ms"})
_SUBSCRIBER_MEMBERS = frozenset({"subscriber", "start_seq", "last_seq", "handled_seq", "skipped"})
_MAX_MS = 253_402_300_799_999
"""The end of the year 9999: later times cannot be formatted."""


class _InvalidState(Exception):
    """Raised by the checks of a state with the reason why it is invalid."""


def make_state(
    *,
    auth_required: bool,
    kid: int,
    keys: Iterable[Mapping[str, Json]],
    attempt: int,
    subscribers: Iterable[Mapping[str, Json]],
) -> State | None:
    """Create the state of a job; return None if its record expresses everything.

    Args:
        auth_required: events must be signed, and the record has no token.
        kid: the version of the current token; 0 and 1 are implied.
        keys: each key except a current and valid one: kid, created_ms, expires_ms, revoked_ms.
        attempt: the job's attempt if its events do not show it, else 0.
        subscribers: subscriber, start_seq, last_seq, handled_seq, skipped (pairs of first and last).
    """
    state: State = {"version": VERSION}
    if auth_required:
        state["auth_required"] = True
    if kid > 1:
        state["kid"] = kid
    sorted_keys = sorted((dict(key) for key in keys), key=lambda key: key["kid"])
    if sorted_keys:
        state["keys"] = sorted_keys
    if attempt:
        state["attempt"] = attempt
    sorted_subscribers = sorted((dict(each) for each in subscribers), key=lambda each: each["subscriber"])
    if sorted_subscribers:
        state["subscribers"] = sorted_subscribers
    return state if len(state) > 1 else None


def limit_subscribers(state: State | None) -> State | None:
    """Return the state within the limits of its parser: without its subscribers if there are too many."""
    subscribers = state.get("subscribers", ()) if state else ()
    if not _too_many(subscribers):
        return state
    assert state is not None
    rest = {name: value for name, value in state.items() if name != "subscribers"}
    return rest if len(rest) > 1 else None


def current_kid(state: State | None) -> int:
    """Return the version of the current token, 1 by default."""
    return state.get("kid", 1) if state else 1


def find_key(state: State | None, kid: int) -> dict[str, Json] | None:
    """Return the state's entry for a key, or None."""
    keys = state.get("keys", ()) if state else ()
    return next((key for key in keys if key["kid"] == kid), None)


def parse_state(found: Json, *, has_token: bool) -> State | Damaged | None:
    """Parse the field; return None if it is empty.

    Args:
        found: the value in the record.
        has_token: True if the record has a token.
    """
    try:
        return _parse(found, has_token)
    except _InvalidState as wrong:
        return Damaged(DamageKind.BAD_STATE, f"{STATE_FIELD} {wrong}; it is not guessed at: correct it or export again")


def newer_state_reason(state: State | None, here: State | None) -> str:
    """Return why a state is newer than another one of the same job; empty if it is not.

    Args:
        state: the state that may be newer.
        here: the other state, with its attempt and kid even if a record would not need them.
    """
    if state is None:
        return ""
    here = here or {}
    if state.get("auth_required") and not here.get("signed"):
        return "its events must be signed there"
    if state.get("kid", 1) > here.get("kid", 1):
        return f"its token is version {state['kid']} there"
    if state.get("attempt", 0) > here.get("attempt", 0):
        return f"it is at attempt {state['attempt']} there"
    keys_here = {key["kid"]: key for key in here.get("keys", ())}
    for key in state.get("keys", ()):
        known = keys_here.get(key["kid"])
        if known is None or ("revoked_ms" in key and "revoked_ms" not in known):
            return f"its token {key['kid']} is revoked or replaced there"
    numbers = {each["subscriber"]: each["last_seq"] for each in here.get("subscribers", ())}
    for each in state.get("subscribers", ()):
        if each["last_seq"] > numbers.get(each["subscriber"], -1):
            return f"subscriber {quoted(each['subscriber'])} has accepted up to seq {each['last_seq']} there"
    return ""


def _parse(found: Json, has_token: bool) -> State | None:
    members = _object(found, "is", _MEMBERS)
    if members.get("version") != VERSION or type(members["version"]) is not int:
        raise _InvalidState("has a version other than 1, as newer exports have")
    required = members.get("auth_required", False)
    if type(required) is not bool:
        raise _InvalidState("has an auth_required that is neither true nor false")
    kid = _integer(members.get("kid", 1), "kid", 1, MAX_KID)
    attempt = _integer(members.get("attempt", 0), "attempt", 0, MAX_SEQ)
    keys = [_key(each, kid) for each in _list(members.get("keys", []), "keys", MAX_KEYS)]
    subscribers = [_subscriber(each) for each in _list(members.get("subscribers", []), "subscribers")]
    if _too_many(subscribers):
        raise _InvalidState("has more subscribers or skipped ranges than are written")
    if len({key["kid"] for key in keys}) != len(keys):
        raise _InvalidState("names a key twice")
    if len({each["subscriber"] for each in subscribers}) != len(subscribers):
        raise _InvalidState("names a subscriber twice")
    if not has_token and not required and (keys or kid > 1):
        raise _InvalidState("has keys, but there is neither a token nor auth_required")
    if has_token:
        if any(key["kid"] == kid for key in keys):
            raise _InvalidState(f"says that key {kid} is revoked, but there is an auth_token")
        required = False
    return make_state(auth_required=required, kid=kid, keys=keys, attempt=attempt, subscribers=subscribers)


def _key(found: Json, current: int) -> dict[str, Json]:
    members = _object(found, "has a key that is", _KEY_MEMBERS)
    kid = _integer(members.get("kid"), "kid of a key", 1, MAX_KID)
    if kid > current or (kid == current and "revoked_ms" not in members):
        raise _InvalidState(f"has a key {kid} that is not an older one of key {current}")
    key = {"kid": kid, "created_ms": _integer(members.get("created_ms"), "created_ms", 0, _MAX_MS)}
    for name in ("expires_ms", "revoked_ms"):
        if name in members:
            key[name] = _integer(members[name], name, 0, _MAX_MS)
    return key


def _subscriber(found: Json) -> dict[str, Json]:
    members = _object(found, "has a subscriber that is", _SUBSCRIBER_MEMBERS)
    name = members.get("subscriber")
    if type(name) is not str or not 1 <= len(name) <= MAX_SUBSCRIBER_CHARS or "\0" in name:
        raise _InvalidState("has a subscriber without a usable name")
    start = _integer(members.get("start_seq"), "start_seq", 0, MAX_SEQ)
    last = _integer(members.get("last_seq"), "last_seq of a subscriber", start, MAX_SEQ)
    handled = _integer(members.get("handled_seq"), "handled_seq", 0, last)
    skipped = []
    for pair in _list(members.get("skipped", []), "skipped"):
        if type(pair) is not list or len(pair) != 2:
            raise _InvalidState("has a skipped range that is not a pair of seqs")
        first = _integer(pair[0], "skipped", start + 1, last)
        skipped.append([first, _integer(pair[1], "skipped", first, last)])
    if any(before[1] >= after[0] for before, after in pairwise(skipped)):
        raise _InvalidState("has skipped ranges that are not ascending")
    subscriber = {"subscriber": name, "start_seq": start, "last_seq": last, "handled_seq": handled}
    return subscriber | {"skipped": skipped} if skipped else subscriber


def _object(found: Json, what: str, members: frozenset[str]) -> dict[str, Json]:
    if type(found) is not dict:
        raise _InvalidState(f"{what} not an object")
    unknown = sorted(found.keys() - members)
    if unknown:
        raise _InvalidState(f"has {quoted(unknown[0])}, which is unknown here")
    return found


def _list(found: Json, name: str, most: int = 10_000_000) -> list[Json]:
    if type(found) is not list:
        raise _InvalidState(f"has {name} that are not a list")
    if len(found) > most:
        raise _InvalidState(f"has {len(found):,} {name}; at most {most:,} are read")
    return found


def _too_many(subscribers: Sequence[Mapping[str, Json]]) -> bool:
    if len(subscribers) > MAX_SUBSCRIBERS:
        return True
    return sum(len(each.get("skipped", ())) for each in subscribers) > MAX_SKIPPED


def _integer(found: Json, name: str, least: int, most: int) -> int:
    if type(found) is not int or not least <= found <= most:
        raise _InvalidState(f"has no usable {name}")
    return found
