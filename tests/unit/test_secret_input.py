"""Test which given tokens are accepted, from which sources, and when a job requires one."""

from __future__ import annotations

import base64
import io
import os
import re
import secrets
import traceback
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobdb.core.secrets import MAX_SECRET_BYTES, MIN_TOKEN_BITS, check_secret, check_token, length_in_bits
from jobdb.crypto.secret_input import (
    auth_required_reason,
    read_from_descriptor,
    read_from_environment,
    read_from_file,
    read_from_stream,
)
from jobdb.errors import InvalidInput
from jobdb.model import Broker

TOKEN = "Wm0x-5tq_Kc2P9vYb7LdR3nE8sHfJ6gT4uAiZoQlXyM"


@given(st.binary(min_size=16, max_size=64))
def test_every_random_secret_of_16_bytes_is_accepted_in_its_usual_forms(secret: bytes) -> None:
    text = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    assume(set(text) - set("0123456789abcdefABCDEF"))  # "AAAA…", 16 zero bytes, is read as hex.
    for form in (secret.hex(), text):
        assert check_token(form) == form


@given(st.binary(max_size=15))
def test_no_secret_under_16_bytes_is_accepted_in_its_usual_forms(secret: bytes) -> None:
    urlsafe, standard = base64.urlsafe_b64encode(secret).decode(), base64.b64encode(secret).decode()
    for form in (secret.hex(), urlsafe.rstrip("="), urlsafe, standard, standard.rstrip("=")):
        with pytest.raises(InvalidInput):
            check_token(form)


@pytest.mark.parametrize(
    ("short", "enough"),
    [
        ("0f" * 15 + "0", "0f" * 16),
        ("0F" * 15 + "0", "0F" * 16),
        ("x" * 21, "x" * 22),
        ("fF" * 10 + "f", "fF" * 11),
        ("one two three!!", "one two three!!!"),
        ("ключ-клю", "ключ-ключ"),
    ],
)
def test_the_minimum_length_of_each_alphabet(short: str, enough: str) -> None:
    assert check_token(enough) == enough
    fault = f"is {length_in_bits(short)} bits long and must have {MIN_TOKEN_BITS}"
    with pytest.raises(InvalidInput, match=fault) as caught:
        check_token(short)
    assert short not in str(caught.value)


def test_generated_tokens_are_long_enough() -> None:
    for _ in range(50):
        assert length_in_bits(secrets.token_urlsafe(32)) >= 256


@pytest.mark.parametrize(
    ("secret", "fault"),
    [
        ("", "is empty"),
        (f"{TOKEN}\x00{TOKEN}", "NUL"),
        (f"{TOKEN}\n{TOKEN}", "more than one line"),
        (f"{TOKEN}\n", "more than one line"),
        (f"{TOKEN}\r", "more than one line"),
        (f"{TOKEN}\u2028{TOKEN}", "more than one line"),
        (f" {TOKEN}", "white space"),
        (f"{TOKEN}\t", "white space"),
        (TOKEN + "x" * MAX_SECRET_BYTES, f"longer than {MAX_SECRET_BYTES} bytes"),
        (f"{TOKEN}\udcff", "not UTF-8"),
    ],
)
def test_a_weak_secret_is_refused_and_not_repeated(secret: str, fault: str) -> None:
    for check in (check_secret, check_token):
        with pytest.raises(InvalidInput, match=f"the token from here .*{fault}") as caught:
            check(secret, where="here")
        assert TOKEN not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None


def test_the_maximum_length_is_counted_in_bytes() -> None:
    assert check_secret("é" * 512)
    with pytest.raises(InvalidInput, match="longer"):
        check_secret("é" * 512 + "x")


@given(st.text(), st.sampled_from(["", TOKEN]))
def test_any_text_is_accepted_unchanged_or_refused(text: str, end: str) -> None:
    try:
        assert check_token(text + end) == text + end
    except InvalidInput:
        return  # the tests above say what is refused
    assert MIN_TOKEN_BITS // 8 <= len((text + end).encode()) <= MAX_SECRET_BYTES
    assert not set(text) & set("\x00\r\n")


@given(st.text())
def test_a_refusal_repeats_nothing_of_the_text(text: str) -> None:
    """A character that no message contains marks both ends: the text itself may be a word of the message."""
    with pytest.raises(InvalidInput) as caught:
        check_token(f"\u2042{text}\n\u2042")
    assert "\u2042" not in str(caught.value)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_one_trailing_newline_of_a_file_is_not_part_of_the_secret(tmp_path: Path, end: bytes) -> None:
    for secret in (TOKEN, "x" * MAX_SECRET_BYTES):
        (tmp_path / "token").write_bytes(secret.encode() + end)
        assert read_from_file(tmp_path / "token") == secret
        assert read_from_stream(io.BytesIO(secret.encode() + end)) == secret


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (TOKEN.encode() + b"\n\n", "more than one line"),
        (TOKEN.encode() + b"\nexport OTHER=1\n", "more than one line"),
        (TOKEN.encode() + b"\xff", "not UTF-8"),
        (b"x" * (MAX_SECRET_BYTES + 1), "longer than"),
        (b"x" * MAX_SECRET_BYTES + b"\n\n\n\n\n", "longer than"),
        (b"x" * MAX_SECRET_BYTES + b"\r\nmore", "longer than"),
        (b"x" * 1_000_000, "longer than"),
    ],
)
def test_a_file_without_a_secret_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"the broker password from the file {file} .*{fault}") as caught:
        read_from_file(file, label="broker password")
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"cannot read the token from the file {tmp_path}/none: No such file"):
        read_from_file(tmp_path / "none")


def test_a_descriptor_is_read_to_its_end_and_left_open() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, TOKEN[:10].encode())
        os.write(writer, TOKEN[10:].encode() + b"\n")
        os.close(writer)
        assert read_from_descriptor(reader) == TOKEN
        os.fstat(reader)
    finally:
        os.close(reader)


@pytest.mark.parametrize("descriptor", [-1, 987_654, 2**40])
def test_a_descriptor_that_is_not_open_is_reported(descriptor: int) -> None:
    with pytest.raises(InvalidInput, match=f"cannot read the token from file descriptor {descriptor}"):
        read_from_descriptor(descriptor)


def test_a_descriptor_without_a_secret_is_refused_once() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    try:
        with pytest.raises(InvalidInput, match=f"the token from file descriptor {reader} is empty"):
            read_from_descriptor(reader)
    finally:
        os.close(reader)


def test_a_secret_from_the_environment_is_not_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_from_environment("JOB_TOKEN", {"JOB_TOKEN": TOKEN}) == TOKEN
    monkeypatch.setenv("JOBDB_TEST_TOKEN", TOKEN)
    assert read_from_environment("JOBDB_TEST_TOKEN") == TOKEN
    with pytest.raises(InvalidInput, match="JOB_TOKEN is not set"):
        read_from_environment("JOB_TOKEN", {})
    with pytest.raises(InvalidInput, match="the environment variable JOB_TOKEN has more than one line"):
        read_from_environment("JOB_TOKEN", {"JOB_TOKEN": TOKEN + "\n"})


PLAIN = Broker(host="localhost")


@pytest.mark.parametrize(
    ("broker", "env", "reason"),
    [
        (Broker(host="mq", tls=True), {}, "mq uses TLS"),
        (Broker(host="mq", username="agent"), {}, "mq has a username"),
        (Broker(host="mq", has_password=True), {}, "mq has a password"),
        (None, {"JOBDB_REQUIRE_AUTH": "1"}, "JOBDB_REQUIRE_AUTH"),
        (PLAIN, {"JOBDB_REQUIRE_AUTH": "yes"}, "JOBDB_REQUIRE_AUTH"),
        (PLAIN, {"MQTT_TLS": "1"}, "MQTT_TLS"),
        (PLAIN, {"MQTT_TLS": "True"}, "MQTT_TLS"),
        (None, {"MQTT_CERTFILE": "/c.pem"}, "MQTT_CERTFILE .*client certificate"),
        (None, {"MQTT_KEYFILE": "/k.pem"}, "MQTT_KEYFILE .*client certificate"),
        (PLAIN, {"MQTT_USERNAME": "agent"}, "MQTT_USERNAME"),
        (PLAIN, {"MQTT_PASSWORD": TOKEN}, "MQTT_PASSWORD"),
    ],
)
def test_environments_that_require_tokens_are_recognized(
    broker: Broker | None, env: dict[str, str], reason: str
) -> None:
    answer = auth_required_reason(broker, env)
    assert answer is not None
    assert re.search(reason, answer)
    assert TOKEN not in answer


@pytest.mark.parametrize("broker", [None, PLAIN])
@pytest.mark.parametrize(
    "env",
    [
        {},
        {"JOBDB_REQUIRE_AUTH": "0", "MQTT_TLS": "false"},
        {"JOBDB_REQUIRE_AUTH": "", "MQTT_TLS": "No", "MQTT_USERNAME": "", "MQTT_KEYFILE": ""},
        {"MQTT_HOST": "localhost"},
    ],
)
def test_environments_that_do_not_require_tokens_are_recognized(broker: Broker | None, env: dict[str, str]) -> None:
    assert auth_required_reason(broker, env) is None


def test_the_process_environment_is_used_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBDB_REQUIRE_AUTH", "1")
    assert auth_required_reason(None) == "JOBDB_REQUIRE_AUTH is set"
