"""Test authenticity without a database: every check, their order, and properties of every event and token."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobdb import EventKind, Verdict
from jobdb.core.authenticity import (
    CLOCK_SLACK_MS,
    AuthenticityFailure,
    SenderCredentials,
    check_authenticity,
    is_overlap_over,
)
from jobdb.core.protocol import WireEvent, build, parse, sign

TOKEN = "the job's token"
NOW = 1_800_000_000_000
TOPIC = "jobdb/jobs/abc12345/events"
JOB = SenderCredentials(7, 1, "jobdb/jobs/abc12345", NOW - 5000, b"sealed", 0, None, None, None, None)


def event(*, token: str | None = TOKEN, kid: int | None = 1, seq: int = 1, detail: str = "") -> WireEvent:
    return build(
        job_id="abc12345",
        seq=seq,
        event=EventKind.PROGRESS,
        timestamp="2026-06-19T09:32:00Z",
        detail=detail,
        data={"pct": 1.5},
        attempt=None,
        kid=kid if token is not None else None,
        token=token,
    )


def not_opened() -> NoReturn:
    raise AssertionError("the token was opened")


def check(
    wire: WireEvent,
    credentials: SenderCredentials | None = JOB,
    *,
    topic: str | None = TOPIC,
    open_token: Callable[[], str] = lambda: TOKEN,
    verified_with: bytes | None = None,
) -> Verdict | None:
    failure = check_authenticity(
        wire, topic, credentials, lambda *_: open_token(), now_ms=NOW, verified_with=verified_with
    )
    assert failure is None or failure.reason
    return failure and failure.verdict


def test_an_authentic_event() -> None:
    assert check(event()) is None
    assert check(event(), topic=None) is None, "an unknown topic is not checked"


def test_unknown_job() -> None:
    assert check(event(), None, open_token=not_opened) is Verdict.UNKNOWN_JOB


@pytest.mark.parametrize("topic", ["", "jobdb/jobs/abc12345", "jobdb/jobs/other/events", TOPIC + "/", TOPIC.upper()])
def test_wrong_topic(topic: str) -> None:
    assert check(event(), topic=topic, open_token=not_opened) is Verdict.WRONG_TOPIC


def test_a_job_without_a_token_needs_no_signature() -> None:
    free = JOB._replace(kid=0, sealed=None)
    for wire in (event(token=None), event(), event(token="another")):
        assert check(wire, free, open_token=not_opened) is None
    assert check(event(token=None), free, topic="elsewhere/events") is Verdict.WRONG_TOPIC


def test_unsigned() -> None:
    assert check(event(token=None), open_token=not_opened) is Verdict.UNSIGNED


def test_an_unknown_key_id_is_refused() -> None:
    failure = check_authenticity(event(kid=9), TOPIC, JOB._replace(sealed=None), lambda *_: not_opened(), now_ms=NOW)
    assert failure == AuthenticityFailure(Verdict.REVOKED_KEY, "the job has no key 9")


@pytest.mark.parametrize(
    "change",
    [{"revoked_ms": NOW}, {"revoked_ms": NOW + 10**9}, {"expires_ms": NOW}, {"expires_ms": NOW + 1, "ended_ms": 1}],
)
def test_a_revoked_key_and_a_key_past_its_overlap_are_refused(change: dict[str, int]) -> None:
    assert check(event(), JOB._replace(**change), open_token=not_opened) is Verdict.REVOKED_KEY


def test_an_old_key_verifies_while_its_overlap_lasts() -> None:
    overlap = JOB._replace(kid=2, expires_ms=NOW + 1)
    assert check(event(), overlap) is None
    assert check(event(token="another"), overlap) is Verdict.BAD_SIGNATURE


def test_bad_signature() -> None:
    assert check(event(token="another")) is Verdict.BAD_SIGNATURE
    assert check(event(), open_token=lambda: "") is Verdict.BAD_SIGNATURE, "an empty token is not a secret"


def test_only_an_imported_token_verifies_the_old_form() -> None:
    import json

    payload = event(token=None, detail="gr\u00f6\u00dfer").payload
    old_form = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    payload["data"]["hmac_sig"] = sign(old_form, TOKEN)
    wire = parse(json.dumps(payload))
    assert check(wire) is Verdict.BAD_SIGNATURE
    assert check(wire, JOB._replace(imported=1)) is None
    assert check(wire, JOB._replace(imported=1), open_token=lambda: "another") is Verdict.BAD_SIGNATURE


def test_a_signature_is_not_verified_again_while_the_token_is_the_same() -> None:
    forged = event(token="another")
    assert check(forged, verified_with=b"sealed", open_token=not_opened) is None, "the caller has verified it"
    assert check(forged, verified_with=b"replaced") is Verdict.BAD_SIGNATURE
    assert check(event(), JOB._replace(revoked_ms=1), verified_with=b"sealed") is Verdict.REVOKED_KEY
    assert check(event(), topic="elsewhere/events", verified_with=b"sealed") is Verdict.WRONG_TOPIC


def test_an_error_of_the_vault_is_raised() -> None:
    def broken() -> NoReturn:
        raise OSError("no key")

    with pytest.raises(OSError, match="no key"):
        check(event(), open_token=broken)
    assert check(event(token=None), open_token=broken) is Verdict.UNSIGNED, "it must not hide an earlier refusal"


FAULTS = (
    Verdict.UNKNOWN_JOB,
    Verdict.WRONG_TOPIC,
    Verdict.UNSIGNED,
    Verdict.REVOKED_KEY,
    Verdict.BAD_SIGNATURE,
)
"""In the order of the documented checks."""


@pytest.mark.parametrize("faults", [c for n in range(6) for c in itertools.combinations(FAULTS, n)], ids=repr)
def test_of_several_faults_the_first_check_decides(faults: tuple[Verdict, ...]) -> None:
    signed_with = None if Verdict.UNSIGNED in faults else "another" if Verdict.BAD_SIGNATURE in faults else TOKEN
    credentials = JOB._replace(revoked_ms=1) if Verdict.REVOKED_KEY in faults else JOB
    verdict = check(
        event(token=signed_with),
        None if Verdict.UNKNOWN_JOB in faults else credentials,
        topic="elsewhere/events" if Verdict.WRONG_TOPIC in faults else TOPIC,
    )
    assert verdict is (faults[0] if faults else None)


_TOKENS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(
    signed_with=_TOKENS, checked_with=_TOKENS, imported=st.booleans(), detail=st.text(max_size=20).filter("\0".__ne__)
)
def test_no_event_verifies_under_another_token(
    signed_with: str, checked_with: str, imported: bool, detail: str
) -> None:
    detail = detail.encode(errors="replace").decode().replace("\0", "")
    wire = event(token=signed_with, detail=detail)
    verdict = check(wire, JOB._replace(imported=int(imported)), open_token=lambda: checked_with)
    # HMAC fills keys of less than a block with zero bytes, so only those that differ by more are other keys.
    same = signed_with.rstrip("\0") == checked_with.rstrip("\0") and len(signed_with.encode()) <= 64
    assert verdict is (None if same or signed_with == checked_with else Verdict.BAD_SIGNATURE)


@given(one=st.integers(1, 1000), other=st.integers(1, 1000), data=st.data())
def test_no_signature_is_valid_for_another_event(one: int, other: int, data: st.DataObject) -> None:
    signed, target = event(seq=one), event(seq=other, token=None, detail=data.draw(st.sampled_from(["", "x"])))
    payload = {**target.payload, "data": {**target.data, "hmac_kid": 1, "hmac_sig": signed.signature}}
    wire = parse(payload)
    assert check(wire) is (None if wire.message == signed.message else Verdict.BAD_SIGNATURE)


_MS = st.integers(0, 2 * NOW)


@given(
    wire=st.sampled_from([event(), event(token=None), event(token="another")]),
    credentials=st.builds(
        SenderCredentials, st.just(7), st.integers(0, 2), st.sampled_from(["jobdb/jobs/abc12345", "other"]), _MS,
        st.none() | st.just(b"sealed"), st.sampled_from([None, 0, 1]),
        st.none() | _MS, st.none() | _MS, st.none() | _MS, st.none() | _MS,
    ),
    topic=st.sampled_from([None, TOPIC]),
)  # fmt: skip
def test_an_event_of_a_job_with_a_token_is_authentic_only_with_a_signature_by_a_valid_key(
    wire: WireEvent, credentials: SenderCredentials, topic: str | None
) -> None:
    verdict = check(wire, credentials, topic=topic)
    if verdict is None and credentials.kid:
        assert wire == event() and credentials.sealed is not None and credentials.revoked_ms is None
        assert credentials.ended_ms is None or credentials.expires_ms is None
        assert credentials.expires_ms is None or credentials.expires_ms > max(NOW, credentials.updated_ms)
        assert topic is None or credentials.topic_prefix == "jobdb/jobs/abc12345"


@pytest.mark.parametrize(
    ("expires", "overlap", "ended", "updated", "over"),
    [
        (None, None, None, 0, False),
        (None, 5, 1, NOW, False),
        (NOW + 1, None, None, 0, False),
        (NOW, None, None, 0, True),
        (NOW + 1, None, 1, 0, True),
        (NOW + 1, None, None, NOW + 1, True),
        (NOW + 5000 + CLOCK_SLACK_MS, 5000, None, 0, False),
        (NOW + 5001 + CLOCK_SLACK_MS, 5000, None, 0, True),
    ],
)
def test_the_end_of_an_overlap(
    expires: int | None, overlap: int | None, ended: int | None, updated: int, over: bool
) -> None:
    assert is_overlap_over(expires, overlap, ended, now_ms=NOW, updated_ms=updated) is over
