"""Test where the master key comes from, and that no other key than the intended one is ever used."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobdb.crypto.master_key import (
    MasterKey,
    create_key_file,
    default_key_path,
    find_master_key,
    generate_key,
    parse_key,
    read_key_file,
)
from jobdb.errors import KeyProblem
from tests.support.requirements import require_module

A = bytes(range(32))
B = bytes(range(100, 132))


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment that contains only a home folder."""
    (tmp_path / "home").mkdir(mode=0o700)
    return {"HOME": str(tmp_path / "home")}


def warning_text(recorder: pytest.WarningsRecorder) -> str:
    """Return all warnings as text."""
    return "\n".join(str(warning.message) for warning in recorder.list)


def private_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@given(st.binary(min_size=32, max_size=32))
def test_every_form_of_a_key_is_read(secret: bytes) -> None:
    standard = base64.b64encode(secret).decode()
    url = base64.urlsafe_b64encode(secret).decode()
    forms = [secret.hex(), secret.hex().upper(), standard, standard[:-1], url, url[:-1], f"  {url}\n"]
    assert {parse_key(form) for form in forms} == {secret}


def test_generated_keys_are_read_and_differ() -> None:
    keys = [generate_key() for _ in range(20)]
    assert len({parse_key(key) for key in keys}) == 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "correct horse battery staple",
        "0" * 63,
        "0" * 65,
        "g" * 64,
        "00 " * 21 + "0",
        "A" * 42,
        "A" * 45,
        "A" * 42 + "!",
        "A" * 42 + "é",
        "=" * 44,
        "A" * 20 + "\n" + "A" * 22,
    ],
)
def test_an_invalid_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(KeyProblem) as caught:
        parse_key(text)
    assert not text or text not in str(caught.value)
    assert caught.value.__context__ is None


def test_the_key_id_distinguishes_keys_and_is_stable() -> None:
    assert MasterKey(A, "x").key_id != MasterKey(B, "x").key_id
    # Stored in databases, so it may never change.
    assert MasterKey(A, "x").key_id == "64d98b7a917457dc"


def test_a_master_key_has_32_bytes_and_shows_none_of_them() -> None:
    key = MasterKey(A, "a test")
    assert repr(key) == str(key) == f"MasterKey(source='a test', key_id='{key.key_id}')"
    with pytest.raises(KeyProblem, match="31 bytes"):
        MasterKey(A[:31], "a test")


def test_the_first_source_wins(tmp_path: Path, home: dict[str, str]) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    private_file(credentials / "jobdb.key", b"c" * 16 + bytes(16))
    file = private_file(tmp_path / "key", B.hex().encode())
    env = home | {
        "JOBDB_KEY": A.hex(),
        "JOBDB_KEY_FILE": str(file),
        "CREDENTIALS_DIRECTORY": str(credentials),
    }
    found = []
    for drop in ("JOBDB_KEY", "JOBDB_KEY_FILE", "CREDENTIALS_DIRECTORY", None):
        key = find_master_key(create=True, env=env)
        found.append((key.secret[:1], key.source))
        if drop:
            del env[drop]
    assert [secret for secret, _ in found[:3]] == [A[:1], B[:1], b"c"]
    assert found[0][1] == "the environment variable JOBDB_KEY"
    assert found[1][1] == f"the file {file} (JOBDB_KEY_FILE)"
    assert found[2][1] == f"the systemd credential {credentials}/jobdb.key"
    assert found[3][1] == f"the file {home['HOME']}/.config/jobdb/master.key"


def test_other_credentials_of_the_service_are_ignored(tmp_path: Path, home: dict[str, str]) -> None:
    env = home | {"CREDENTIALS_DIRECTORY": str(tmp_path), "JOBDB_KEYRING": "0"}
    assert "master.key" in find_master_key(create=True, env=env).source


@pytest.mark.parametrize("content", [A.hex().encode(), A.hex().encode() + b"\n", base64.b64encode(A), A])
def test_a_key_file_may_contain_text_or_raw_bytes(tmp_path: Path, content: bytes) -> None:
    file = private_file(tmp_path / "key", content)
    assert find_master_key(create=False, env={"JOBDB_KEY_FILE": str(file)}).secret == A


@pytest.mark.parametrize("text", ["pässwört that has 32 bytes in:", "\x01" * 32, "\udcff" * 31 + "\x01"])
def test_the_environment_may_contain_text_but_not_raw_bytes(home: dict[str, str], text: str) -> None:
    """A sentence is not a random key, and the environment would truncate raw bytes."""
    assert len(text.encode("utf-8", "replace")) == 32
    with pytest.raises(KeyProblem, match="JOBDB_KEY") as caught:
        find_master_key(create=True, env=home | {"JOBDB_KEY": text})
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"0123456789abcdef0123456789abcdef",
        b"correct horse battery staple",
        bytes(31),
        bytes(33),
        b"\xff" * 10_000,
    ],
)
def test_a_key_file_without_a_key_is_an_error_and_no_other_source_is_tried(
    tmp_path: Path, home: dict[str, str], content: bytes
) -> None:
    file = private_file(tmp_path / "key", content)
    with pytest.raises(KeyProblem, match=str(file)) as caught:
        find_master_key(create=True, env=home | {"JOBDB_KEY_FILE": str(file)})
    assert not content.strip() or content.decode("latin-1") not in str(caught.value)
    assert not os.path.exists(default_key_path(home))


@pytest.mark.parametrize(
    "env",
    [{"JOBDB_KEY": ""}, {"JOBDB_KEY": "short"}, {"JOBDB_KEY_FILE": ""}, {"JOBDB_KEY_FILE": "/nowhere/key"}],
)
def test_a_named_source_that_fails_is_never_skipped(home: dict[str, str], env: dict[str, str]) -> None:
    with pytest.raises(KeyProblem, match=next(iter(env))):
        find_master_key(create=True, env=home | env)
    assert not os.path.exists(default_key_path(home))


def test_a_key_is_read_from_a_pipe_of_process_substitution(home: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.write(writer, A.hex().encode())
    os.close(writer)
    try:
        key = find_master_key(create=False, env=home | {"JOBDB_KEY_FILE": f"/dev/fd/{reader}"})
    finally:
        os.close(reader)
    assert key.secret == A


def test_a_key_file_that_others_can_read_works_and_warns_with_the_command(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    file = private_file(tmp_path / "key", A.hex().encode())
    file.chmod(0o640)
    assert find_master_key(create=False, env={"JOBDB_KEY_FILE": str(file)}).secret == A
    assert f"chmod 600 {file}" in warning_text(recwarn)
    assert A.hex() not in warning_text(recwarn)
    recwarn.clear()
    file.chmod(0o600)
    find_master_key(create=False, env={"JOBDB_KEY_FILE": str(file)})
    assert warning_text(recwarn) == ""


def test_modes_of_systemd_credentials_are_not_checked(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    file = private_file(tmp_path / "jobdb.key", A.hex().encode())
    file.chmod(0o440)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    find_master_key(create=False, env=env)
    find_master_key(create=False, env=env | {"JOBDB_KEY_FILE": str(file)})
    assert warning_text(recwarn) == ""


def test_the_users_key_is_created_once_privately_and_kept(
    home: dict[str, str], recwarn: pytest.WarningsRecorder
) -> None:
    before = os.umask(0)
    try:
        made = find_master_key(create=True, env=home)
    finally:
        os.umask(before)
    place = Path(default_key_path(home))
    assert place == Path(home["HOME"], ".config", "jobdb", "master.key")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert os.listdir(place.parent) == ["master.key"]
    assert parse_key(place.read_text()) == made.secret
    assert find_master_key(create=True, env=home) == find_master_key(create=False, env=home) == made
    assert warning_text(recwarn) == ""
    place.chmod(0o644)
    place.parent.chmod(0o755)
    assert find_master_key(create=False, env=home).secret == made.secret
    assert f"chmod 600 {place}" in warning_text(recwarn)
    assert f"chmod 700 {place.parent}" in warning_text(recwarn)


def test_a_missing_key_that_may_not_be_created_is_an_error(home: dict[str, str]) -> None:
    with pytest.raises(KeyProblem, match=r"there is no master key: neither JOBDB_KEY nor JOBDB_KEY_FILE"):
        find_master_key(create=False, env=home)
    assert os.listdir(home["HOME"]) == []


def test_xdg_config_home_counts_only_when_absolute(tmp_path: Path, home: dict[str, str]) -> None:
    assert default_key_path(home | {"XDG_CONFIG_HOME": str(tmp_path)}) == f"{tmp_path}/jobdb/master.key"
    for ignored in ("", "relative/folder"):
        assert default_key_path(home | {"XDG_CONFIG_HOME": ignored}) == default_key_path(home)


def test_if_no_key_can_be_created_the_error_names_the_alternatives(tmp_path: Path, home: dict[str, str]) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(KeyProblem, match="cannot create a master key"):
        find_master_key(create=True, env=home | {"XDG_CONFIG_HOME": str(tmp_path / "file")})


def test_a_key_file_is_created_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create_key_file("new.key")
    first = read_key_file("new.key")
    create_key_file(tmp_path / "new.key")
    assert read_key_file(tmp_path / "new.key").secret == first.secret
    assert stat.S_IMODE((tmp_path / "new.key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["new.key"]


def test_a_damaged_key_of_the_user_is_not_replaced(home: dict[str, str]) -> None:
    find_master_key(create=True, env=home)
    place = Path(default_key_path(home))
    place.write_bytes(b"")
    with pytest.raises(KeyProblem, match="empty"):
        find_master_key(create=True, env=home)
    assert place.read_bytes() == b""


def test_concurrent_processes_agree_on_the_first_key(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBDB_KEY")
    program = (
        "import sys\nfrom jobdb.crypto.master_key import find_master_key\nprint(flush=True)\nsys.stdin.read()\n"
        "print(find_master_key(create=True).key_id)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **home, "XDG_CONFIG_HOME": ""},
        )
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdout
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin
        racer.stdin.close()
        racer.stdin = None
    answers = [racer.communicate(timeout=60) for racer in racers]
    assert [err for _, err in answers] == [""] * 6
    assert {out.strip() for out, _ in answers} == {find_master_key(create=False, env=home).key_id}
    assert os.listdir(os.path.dirname(default_key_path(home))) == ["master.key"]


def test_the_keyring_is_used_only_on_request_and_its_absence_is_an_error(
    home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)  # As if the extra were not installed.
    assert "master.key" in find_master_key(create=True, env=home).source
    with pytest.raises(KeyProblem, match=r"pip install 'jobdb\[keyring\]'"):
        find_master_key(create=True, env=home | {"JOBDB_KEYRING": "1"})


def test_a_key_in_the_system_keyring(home: dict[str, str]) -> None:
    keyring = require_module("keyring", "jobdb[keyring]")

    class Memory(keyring.backend.KeyringBackend):  # type: ignore[misc, name-defined]
        priority = 1

        def __init__(self) -> None:
            super().__init__()
            self.entries: dict[tuple[str, str], str] = {}

        def get_password(self, service: str, username: str) -> str | None:
            return self.entries.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self.entries[service, username] = password

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    env = home | {"JOBDB_KEYRING": "1"}
    try:
        with pytest.raises(KeyProblem, match="keyring set jobdb master-key"):
            find_master_key(create=True, env=env)
        keyring.set_password("jobdb", "master-key", A.hex())
        key = find_master_key(create=True, env=env)
    finally:
        keyring.set_keyring(before)
    assert key.secret == A
    assert "keyring" in key.source


def test_a_key_names_the_file_that_must_be_private(tmp_path: Path, home: dict[str, str]) -> None:
    """It names none if the key comes from the environment or systemd; the doctor checks no other file."""
    file = private_file(tmp_path / "key", A)
    named = {"JOBDB_KEY_FILE": str(file)}
    given = find_master_key(create=False, env={"JOBDB_KEY": A.hex(), **named})
    assert (given.private_file, given.private_folder) == (None, None)
    key = find_master_key(create=False, env={"JOBDB_KEYRING": "1", **named})
    assert (key.private_file, key.private_folder) == (str(file), None) and key.privacy_warnings() == []
    file.chmod(0o644)
    assert len(key.privacy_warnings()) == 1
    credential = find_master_key(create=False, env={"CREDENTIALS_DIRECTORY": str(tmp_path), **named})
    assert credential.private_file is None and credential.privacy_warnings() == []
    own = find_master_key(create=True, env=home)
    assert own.private_file == default_key_path(home) and own.private_folder == os.path.dirname(own.private_file)
