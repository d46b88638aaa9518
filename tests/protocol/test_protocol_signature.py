"""Test signatures, including the old form."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from jobdb.core.protocol import parse, sign, verify
from jobdb.errors import InvalidInput

OLD_TOKEN = "Tq3v0Zk8mXw1yR5uB7cD9eF2gH4iJ6kL8nP0sV3xZ5A"
# Lines from logs of the old agents, signed with json.dumps(sort_keys=True, separators=(",", ":")).
OLD_LINES = (
    '{"schema_version": 1, "seq": 1, "job_id": "0a1b2c3d", "event": "started", "timestamp": "2026-07-08T23:48:19Z", '
    '"detail": "job started", '
    '"data": {"hmac_sig": "6b86fc0c1b47bcfcbf977f44e053d4497dadd895ebd5cd265451dbb40de05bbe"}}',
    '{"schema_version": 1, "seq": 2, "job_id": "0a1b2c3d", "event": "progress", "timestamp": "2026-07-08T23:48:59Z", '
    '"detail": "Schritt f\\u00fcr Schritt \\ud83c\\udf89", '
    '"data": {"pct": 32, "hmac_sig": "06fd28bc779a0ac58b70564416470eaf7247e138153fea5d80c78a537c7d57d8"}}',
    '{"schema_version": 1, "seq": 3, "job_id": "0a1b2c3d", "event": "completed", "timestamp": "2026-07-08T23:51:39Z", '
    '"detail": "all artifacts written", "data": {"sec": 12.0, "load": 1e-05, "gr\\u00f6\\u00dfe": 3, '
    '"hmac_sig": "71fa1943f4144738b5c3addefaf5840ca7757e586f8006f31f81b11a3cdc07a8"}}',
)


def test_the_signature_is_hmac_sha256_in_hex() -> None:
    message = b'{"a":1}'
    assert sign(message, OLD_TOKEN) == hmac.new(OLD_TOKEN.encode(), message, hashlib.sha256).hexdigest()


def test_rfc_4231_case_2() -> None:
    assert sign(b"what do ya want for nothing?", "Jefe") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@pytest.mark.parametrize("line", OLD_LINES)
def test_the_old_form_verifies_for_imported_tokens(line: str) -> None:
    event = parse(line)
    assert verify(event, OLD_TOKEN, legacy=True)
    assert not verify(event, OLD_TOKEN + "x", legacy=True)
    changed = json.loads(line)
    changed["seq"] += 1
    assert not verify(parse(changed), OLD_TOKEN, legacy=True)


def test_the_old_form_does_not_verify_by_default() -> None:
    ours = [verify(parse(line), OLD_TOKEN) for line in OLD_LINES]
    assert ours == [True, False, False], "both forms agree only without doubles and non-ASCII characters"


def signed(signature: Any) -> Any:
    payload = json.loads(OLD_LINES[0])
    payload["data"] = {} if signature is None else {"hmac_sig": signature}
    return parse(payload)


def test_texts_that_are_not_a_signature() -> None:
    good = parse(OLD_LINES[0]).signature
    assert good is not None and verify(signed(good), OLD_TOKEN)
    for wrong in (
        None,
        "",
        good[:-1],
        good + "0",
        good + " ",
        good.upper(),
        "\uff10" * 64,
        "0" * 64,
        OLD_TOKEN,
        "x" * 99999,
    ):
        assert not verify(signed(wrong), OLD_TOKEN)
        assert not verify(signed(wrong), OLD_TOKEN, legacy=True)


def test_an_empty_token_signs_and_verifies_nothing() -> None:
    keyless = hmac.new(b"", parse(OLD_LINES[0]).message, hashlib.sha256).hexdigest()
    assert not verify(signed(keyless), "")
    assert not verify(signed(keyless), "", legacy=True)
    with pytest.raises(InvalidInput):
        sign(b"{}", "")


def test_errors_do_not_name_the_token() -> None:
    with pytest.raises(InvalidInput) as caught:
        sign(b"{}", "s3cr3t\ud800")
    assert "s3cr3t" not in str(caught.value) and caught.value.__suppress_context__
