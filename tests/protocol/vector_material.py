"""Material for the cases of schema/vectors.json: events, signatures, and the contexts in which they arrive.

Used by the cases and make_vectors.py. Calls the standard library and the ``rfc8785`` package, nothing of jobdb.
"""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import dataclass
from typing import Any

import rfc8785

TOKEN = "3q2-7wEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJo"
SECOND_TOKEN = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE"
OTHER_TOKEN = "b3RoZXItam9icy10b2tlbi0wMTIzNDU2Nzg5YWJjZGU"
WIDE_TOKEN = "schl\u00fcssel-\u9375-\U0001f511-0123456789abcdef0123456789"
JOB = "abc12345"
TOPIC = "mam/jobs/abc12345/events"
TIME = "2026-06-19T09:32:00Z"
UNSIGNED = "no signature"


@dataclass
class Case:
    """One vector before it is computed. ``payload`` is text, bytes, or pieces with the number of repetitions."""

    name: str
    payload: str | bytes | list[tuple[str, int]]
    verdict: str
    context: str = "claimed"
    rule: str = ""
    canonical: str | None = None
    topic: str | None = None
    missing: tuple[int, int] | None = None

    def raw(self) -> bytes:
        if isinstance(self.payload, bytes):
            return self.payload
        if isinstance(self.payload, str):
            return self.payload.encode()
        return "".join(piece * times for piece, times in self.payload).encode()

    def payload_fields(self) -> dict[str, Any]:
        if isinstance(self.payload, bytes):
            return {"payload_base64": base64.b64encode(self.payload).decode()}
        if isinstance(self.payload, str):
            return {"payload": self.payload}
        return {"payload_parts": self.payload}


def signature(payload: dict[str, Any], token: str) -> str:
    data = {key: value for key, value in payload["data"].items() if key != "hmac_sig"}
    return hmac.digest(token.encode(), rfc8785.dumps({**payload, "data": data}), "sha256").hex()


def event(*, sign_with: str | None = TOKEN, **changes: Any) -> dict[str, Any]:
    """Return a valid event of the context ``claimed``, with changes; signed afterwards."""
    payload: dict[str, Any] = {
        "schema_version": 1,
        "seq": 1,
        "job_id": JOB,
        "event": "progress",
        "timestamp": TIME,
        "detail": "step 3 of 10",
        "data": {"attempt": 1, "hmac_kid": 1},
    }
    payload.update(changes)
    if sign_with is not None:
        payload["data"] = {**payload["data"], "hmac_sig": signature(payload, sign_with)}
    return payload


def text(payload: dict[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def line(**changes: Any) -> str:
    return text(event(**changes))


def with_data(data: str, *, token: str = TOKEN, seq: int = 1, detail: str = '"d"', more: str = "") -> str:
    """Return a signed event whose data, detail and further fields are the given JSON texts."""

    def whole(inner: str) -> str:
        return (
            f'{{"schema_version":1,"seq":{seq},"job_id":"{JOB}","event":"progress","timestamp":"{TIME}",'
            f'"detail":{detail},"data":{{{inner}}}{more}}}'
        )

    inner = ",".join(part for part in (data, '"attempt":1') if part)
    sig = signature(json.loads(whole(inner)), token)
    return whole(f'{inner},"hmac_sig":"{sig}"')


def raw(field: str, value: str) -> str:
    """Return a valid event in which one field's value is replaced by the given JSON text; its signature stays."""
    payload = event()
    pieces = [f'"{key}":{value if key == field else text_of(item)}' for key, item in payload.items()]
    return "{" + ",".join(pieces) + "}"


def raw_data(inner: str) -> str:
    sig = event()["data"]["hmac_sig"]
    return raw("data", f'{{{inner},"hmac_sig":"{sig}"}}')


def without(field: str) -> str:
    payload = event()
    del payload[field]
    return text(payload)


def text_of(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"))


def legacy(payload: dict[str, Any], token: str) -> str:
    """Return an event signed as agents of the old registry sign it."""
    message = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    sig = hmac.digest(token.encode(), message.encode(), "sha256").hex()
    return json.dumps({**payload, "data": {**payload["data"], "hmac_sig": sig}})


def event_of_size(size: int) -> list[tuple[str, int]]:
    """Return a signed event of that many bytes, most of them in data."""
    payload = event(data={"attempt": 1, "bulk": ""})
    room = size - len(text(payload))
    payload = event(data={"attempt": 1, "bulk": "x" * room})
    head, tail = text(payload).split("x" * room)
    return [(head, 1), ("x", room), (tail, 1)]


def repeated_char(field: str, char: str, times: int) -> list[tuple[str, int]]:
    written = text_of(char)[1:-1]
    head, tail = line(**{field: char * times}).split(written * times)
    return [(head, 1), (written, times), (tail, 1)]


def event_of_values(count: int, item: Any) -> list[tuple[str, int]]:
    """Return a signed event of that many values, most of them the same item in a list in ``data``."""
    beside = 11  # the payload, its seven fields, attempt, the signature, the list
    signed = text(event(data={"attempt": 1, "x": [item] * (count - beside)}))
    one = text_of(item) + ","
    head, tail = signed.split(one * (count - beside - 1))
    return [(head, 1), (one, count - beside - 1), (tail, 1)]


HISTORY = [event(seq=n, event="started" if n == 1 else "progress", detail=f"step {n}") for n in (1, 2, 5)]
END = event(seq=6, event="completed", detail="all done")
UNLOGGED_END = event(seq=6, event="completed", detail="all done", data={})
END_OF_SECOND = event(seq=6, event="completed", detail="all done", data={"attempt": 2})


def key(kid: int, token: str, state: str = "valid", legacy: bool = False) -> dict[str, Any]:
    return {"kid": kid, "token": token, "state": state, "legacy": legacy}


def context(**changes: Any) -> dict[str, Any]:
    """Return the context of a job that was claimed once and has no events yet, with changes."""
    return {
        "job_id": JOB,
        "topic": TOPIC,
        "status": "running",
        "attempt": 1,
        "tokens": [key(1, TOKEN)],
        "window": 0,
        "start_seq": 0,
        "last_seq": 0,
        "recorded": [],
        "accepted": [],
        "ended": None,
        **changes,
    }


_LINES = [text(past) for past in HISTORY]
_PAST: dict[str, Any] = {"recorded": _LINES, "accepted": [1, 2, 5], "last_seq": 5}
_ENDED: dict[str, Any] = {"recorded": [*_LINES, text(END)], "accepted": [1, 2, 5, 6], "last_seq": 6}
_ENDED |= {"status": "completed", "ended": 6}

CONTEXTS: dict[str, dict[str, Any]] = {
    "unclaimed": context(status="pending", attempt=0),
    "claimed": context(),
    "wide token": context(tokens=[key(1, WIDE_TOKEN)]),
    "rotated": context(tokens=[key(1, TOKEN), key(2, SECOND_TOKEN)]),
    "revoked": context(tokens=[key(1, TOKEN, "revoked"), key(2, SECOND_TOKEN)]),
    "expired": context(tokens=[key(1, TOKEN, "expired"), key(2, SECOND_TOKEN)]),
    "imported": context(tokens=[key(1, TOKEN, legacy=True)]),
    "no token": context(tokens=[]),
    "history": context(**_PAST),
    "window 1": context(**_PAST, window=1),
    "window 2": context(**_PAST, window=2),
    "taken over": context(**_PAST, attempt=2),
    "released": context(**_PAST, status="pending"),
    "recorded, not accepted": context(**{**_PAST, "accepted": [1, 2], "last_seq": 2}, attempt=2),
    "from now": context(recorded=_LINES, last_seq=5, start_seq=5, window=9),
    "ended": context(**_ENDED),
    "ended, window 2": context(**_ENDED, window=2),
    "ended, taken over": context(**{**_ENDED, "recorded": [*_LINES, text(END_OF_SECOND)]}, attempt=2, window=2),
    "ended elsewhere": context(**{**_ENDED, "accepted": [1, 2, 5], "last_seq": 5}),
    "cancelled": context(**_PAST, status="cancelled", ended=5),
    "released, cancelled": context(**_PAST, status="cancelled", ended=5, given_back=True, window=2),
    "ended without a log": context(status="completed", attempt=0, tokens=[key(1, TOKEN, legacy=True)], ended=6),
}
