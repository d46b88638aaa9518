"""Cases of schema/vectors.json that depend on the state of the registry: identity, keys, attempts and replay.

Used by make_vectors.py alone. The verdict of each is written by hand.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import rfc8785
from vector_material import (
    END,
    HISTORY,
    OTHER_TOKEN,
    TOKEN,
    TOPIC,
    UNLOGGED_END,
    UNSIGNED,
    Case,
    event,
    legacy,
    line,
    text,
)


def identity_cases() -> list[Case]:
    """Return cases of unknown_job, wrong_topic, unsigned, revoked_key, bad_signature."""
    good = event(data={"pct": 30, "attempt": 1, "hmac_kid": 1})
    sig = good["data"]["hmac_sig"]

    def tampered(**changes: Any) -> str:
        return text({**good, **changes})

    def tampered_data(**changes: Any) -> str:
        return text({**good, "data": {**good["data"], **changes}})

    old_form: dict[str, Any] = event(sign_with=None, data={"pct": 30})
    old_delete = event(sign_with=None, detail="a\x7fb\x01", data={"\x7f": "\x7e"})
    old_doubles = event(sign_with=None, detail="\u00e9\U0001f389", data={"n": [1.0, 1e16, 1e-5, 0.1, 1e100, 2]})
    return [
        Case("another job's id", line(job_id="zzz99999"), "unknown_job"),
        Case("an unknown job, unsigned", line(job_id="zzz99999", sign_with=None), "unknown_job"),
        Case("ids are compared to the letter", line(job_id="ABC12345"), "unknown_job"),
        Case("on its own topic", line(), "accepted", topic=TOPIC),
        Case("on another job's topic", line(), "wrong_topic", topic="mam/jobs/zzz99999/events"),
        Case("on another job's topic, and unsigned", line(sign_with=None), "wrong_topic", topic="mam/jobs/z/events"),
        Case("on the topic without /events", line(), "wrong_topic", topic="mam/jobs/abc12345"),
        Case(UNSIGNED, line(sign_with=None), "unsigned"),
        Case("no signature, an unknown key", line(sign_with=None, data={"hmac_kid": 9}), "unsigned"),
        Case("no signature, the old plaintext token", line(sign_with=None, data={"auth_token": TOKEN}), "unsigned"),
        Case("a revoked key", line(), "revoked_key", "revoked"),
        Case("a key whose overlap is over", line(), "revoked_key", "expired"),
        Case("a key that never was", line(data={"hmac_kid": 3, "attempt": 1}), "revoked_key", "rotated"),
        Case("a key that never was, and a bad signature", tampered_data(hmac_kid=2147483647), "revoked_key"),
        Case("signed with another job's token", line(sign_with=OTHER_TOKEN), "bad_signature"),
        Case(
            "another job's signature",
            tampered_data(hmac_sig=event(sign_with=OTHER_TOKEN)["data"]["hmac_sig"]),
            "bad_signature",
        ),
        Case(
            "the first key's signature under the second key's number",
            tampered_data(hmac_kid=2),
            "bad_signature",
            "rotated",
        ),
        Case("seq changed", tampered(seq=2), "bad_signature"),
        Case("event changed", tampered(event="completed"), "bad_signature"),
        Case("timestamp changed", tampered(timestamp="2026-06-19T09:32:01Z"), "bad_signature"),
        Case("detail changed", tampered(detail="step 4 of 10"), "bad_signature"),
        Case("attempt changed", tampered_data(attempt=2), "bad_signature"),
        Case("data changed", tampered_data(pct=31), "bad_signature"),
        Case("a number became text", tampered_data(pct="30"), "bad_signature"),
        Case("a number in another form is the same number", text(good).replace('"pct":30', '"pct":3.0e1'), "accepted"),
        Case("a key added", tampered_data(more=1), "bad_signature"),
        Case("a field added", tampered(more=1), "bad_signature"),
        Case("the field of the key left out", text(good).replace(',"hmac_kid":1', ""), "bad_signature"),
        Case("signature in capitals", tampered_data(hmac_sig=sig.upper()), "bad_signature"),
        Case("signature empty", tampered_data(hmac_sig=""), "bad_signature"),
        Case("signature cut short", tampered_data(hmac_sig=sig[:-1]), "bad_signature"),
        Case("signature with one more digit", tampered_data(hmac_sig=sig + "0"), "bad_signature"),
        Case("signature with a blank", tampered_data(hmac_sig=sig + " "), "bad_signature"),
        Case("signature with a NUL", tampered_data(hmac_sig=sig + "\0"), "bad_signature"),
        Case("signature beyond ASCII", tampered_data(hmac_sig="\uff10" * 64), "bad_signature"),
        Case(
            "signature in base64",
            tampered_data(hmac_sig=base64.b64encode(bytes.fromhex(sig)).decode()),
            "bad_signature",
        ),
        Case("signature of zeros", tampered_data(hmac_sig="0" * 64), "bad_signature"),
        Case("the token in place of the signature", tampered_data(hmac_sig=TOKEN), "bad_signature"),
        Case(
            "SHA-256 without a key",
            tampered_data(hmac_sig=hashlib.sha256(rfc8785.dumps(old_form)).hexdigest()),
            "bad_signature",
        ),
        Case("the old signing form, an imported token", legacy(old_form, TOKEN), "accepted", "imported"),
        Case("the old signing form escapes DEL", legacy(old_delete, TOKEN), "accepted", "imported"),
        Case("the old signing form, doubles and escapes", legacy(old_doubles, TOKEN), "accepted", "imported"),
        Case(
            "the new signing form, an imported token", line(data={"pct": 1.5}, detail="\u00e9"), "accepted", "imported"
        ),
        Case("the old signing form, a token of ours", legacy(old_doubles, TOKEN), "bad_signature"),
        Case(
            "the old signing form, changed",
            legacy(old_doubles, TOKEN).replace("1e+16", "1e+17"),
            "bad_signature",
            "imported",
        ),
        Case(
            "the old signing form, 1.0 made 1",
            legacy(old_doubles, TOKEN).replace("[1.0,", "[1,"),
            "bad_signature",
            "imported",
        ),
    ]


def replay_cases() -> list[Case]:
    """Return cases of replay and lifecycle verdicts, over the events of HISTORY."""
    again = HISTORY[1]
    return [
        Case("the same event again", text(again), "duplicate", "history"),
        Case(
            "the same event again, written otherwise",
            json.dumps(dict(sorted(again.items())), indent=1),
            "duplicate",
            "history",
        ),
        Case("the last event again", text(HISTORY[2]), "duplicate", "history"),
        Case("the same event again, its signature spoilt", text(again)[:-4] + '0"}}', "bad_signature", "history"),
        Case("same seq, other detail", line(seq=2, detail="step two"), "conflict", "history"),
        Case(
            "same seq, other time",
            line(seq=2, detail="step 2", timestamp="2026-06-19T09:33:00Z"),
            "conflict",
            "history",
        ),
        Case("same seq, other attempt", line(seq=5, detail="step 5", data={"attempt": 2}), "conflict", "history"),
        Case("the next event", line(seq=6), "accepted", "history"),
        Case("an event after a gap", line(seq=9), "accepted", "history", missing=(6, 8)),
        Case("a late event, strict", line(seq=3), "replayed", "history"),
        Case("a late terminal event, strict", line(seq=4, event="completed"), "replayed", "history"),
        Case("a late event within the window", line(seq=4), "accepted", "window 2"),
        Case("a late event at the window's edge", line(seq=3), "accepted", "window 2"),
        Case("a late event past the window", line(seq=3), "replayed", "window 1"),
        Case("an event before the subscriber's start", line(seq=3), "replayed", "from now"),
        Case("recorded before the subscriber's start", text(HISTORY[0]), "replayed", "from now"),
        Case("the first event after the subscriber's start", line(seq=6), "accepted", "from now"),
        Case("an older claim", line(seq=6, data={"attempt": 1}), "stale_attempt", "taken over"),
        Case("a claim that never was", line(seq=6, data={"attempt": 3}), "stale_attempt", "taken over"),
        Case("no attempt after a second claim", line(seq=6, data={}), "stale_attempt", "taken over"),
        Case("the present claim", line(seq=6, data={"attempt": 2}), "accepted", "taken over"),
        Case("an older claim's terminal event", line(seq=6, event="completed"), "stale_attempt", "taken over"),
        Case("an older claim, replayed", line(seq=3), "replayed", "taken over"),
        Case(
            "an older claim's event that is recorded",
            text(HISTORY[2]),
            "accepted",
            "recorded, not accepted",
            missing=(3, 4),
        ),
        Case("an attempt before the first claim", line(data={"attempt": 1}), "stale_attempt", "unclaimed"),
        Case("no attempt after the first claim", line(data={}), "accepted"),
        Case("a claim that was given back", line(seq=6), "stale_attempt", "released"),
        Case("no attempt after the claim was given back", line(seq=6, data={}), "stale_attempt", "released"),
        Case("a terminal event", text(END), "accepted", "history"),
        Case("a terminal error", line(seq=6, event="error"), "accepted", "history"),
        Case("the terminal event again", text(END), "duplicate", "ended"),
        Case("a second terminal event", line(seq=7, event="error"), "conflict", "ended"),
        Case(
            "a second terminal event of the same kind",
            line(seq=7, event="completed", detail="all done"),
            "conflict",
            "ended",
        ),
        Case("a second terminal event, earlier", line(seq=4, event="error"), "conflict", "ended"),
        Case("the terminal seq, not terminal", line(seq=6), "conflict", "ended"),
        Case("progress after the end", line(seq=7), "after_terminal", "ended"),
        Case("progress long after the end, by an older claim", line(seq=99), "stale_attempt", "ended, taken over"),
        Case("progress after the end, without an attempt", line(seq=7, data={}), "stale_attempt", "ended, taken over"),
        Case("late progress without an attempt, by whom?", line(seq=4, data={}), "stale_attempt", "ended, taken over"),
        Case(
            "late progress without an attempt, of the only claim", line(seq=4, data={}), "accepted", "ended, window 2"
        ),
        Case("late progress after the end, strict", line(seq=4), "replayed", "ended"),
        Case("late progress after the end, within the window", line(seq=4), "accepted", "ended, window 2"),
        Case("the end, for a subscriber who has not seen it", text(END), "accepted", "ended elsewhere"),
        Case(
            "the end of a job that was imported without its log",
            text(UNLOGGED_END),
            "accepted",
            "ended without a log",
            missing=(1, 5),
        ),
        Case("another end of it", line(seq=6, event="error", data={}), "conflict", "ended without a log"),
        Case("another end of it, later", line(seq=7, event="completed", data={}), "conflict", "ended without a log"),
        Case("another end of it, earlier", line(seq=5, event="completed", data={}), "conflict", "ended without a log"),
        Case("progress after that end", line(seq=7, data={}), "after_terminal", "ended without a log"),
        Case("a terminal event after cancellation", line(seq=6, event="completed"), "conflict", "cancelled"),
        Case("progress after cancellation", line(seq=6), "after_terminal", "cancelled"),
        Case("an old event after cancellation", text(HISTORY[0]), "duplicate", "cancelled"),
        Case("given back, then cancelled: its last claim counts", line(seq=4), "accepted", "released, cancelled"),
        Case("given back, then cancelled: no attempt", line(seq=4, data={}), "accepted", "released, cancelled"),
        Case("given back, then cancelled: after the end", line(seq=6), "after_terminal", "released, cancelled"),
        Case(
            "given back, then cancelled: a claim that never was",
            line(seq=4, data={"attempt": 2}),
            "stale_attempt",
            "released, cancelled",
        ),
        Case(
            "given back, then cancelled: a terminal event",
            line(seq=6, event="completed"),
            "conflict",
            "released, cancelled",
        ),
    ]
