"""Test the vault: a sealed secret can be unsealed only in its row and under its key, and is shown nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobdb.crypto.master_key import MasterKey
from jobdb.crypto.vault import Vault
from jobdb.errors import InvalidInput, KeyProblem
from tests.support.threads import run_in_threads

MASTER = MasterKey(bytes(range(32)), "a test")
OTHER_KEY = MasterKey(bytes(range(1, 33)), "another test")
ROW = "token:abc12345:1"
FIRST_RELEASE = bytes.fromhex(
    "0164d98b7a917457dc1cf24ee9d55f9aafd6bd8a6fb72fa5209de5294d3ca87d70fe11"
    "6d7817e141ab7356e412a5d522e02d8723c7d55775456fb1e3762b12655deca81cf9"
)
SECRET = "kJ3xq8mW-this-is-the-secret-5vTz"


@given(st.text(), st.text())
def test_any_text_round_trips(secret: str, row: str) -> None:
    sealed = Vault(MASTER).seal(secret, bound_to=row)
    assert Vault(MASTER).unseal(sealed, bound_to=row) == secret


def test_the_sealed_form_is_as_documented_and_nonces_never_repeat() -> None:
    vault = Vault(MASTER)
    sealed = {vault.seal(SECRET, bound_to=ROW) for _ in range(50)}
    assert len({each[9:21] for each in sealed}) == 50
    for each in sealed:
        assert each[:9] == b"\x01" + bytes.fromhex(MASTER.key_id)
        assert len(each) == 9 + 12 + len(SECRET) + 16
        assert SECRET.encode() not in each


def test_secrets_sealed_by_the_first_release_can_be_unsealed() -> None:
    assert Vault(MASTER).unseal(FIRST_RELEASE, bound_to=ROW) == SECRET


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_changed_byte_is_refused(position: int, flip: int) -> None:
    sealed = bytearray(Vault(MASTER).seal(SECRET, bound_to=ROW))
    sealed[position % len(sealed)] ^= flip
    with pytest.raises(KeyProblem):
        Vault(MASTER).unseal(bytes(sealed), bound_to=ROW)


@given(st.integers(min_value=0, max_value=70))
def test_any_shortened_secret_is_refused(length: int) -> None:
    sealed = Vault(MASTER).seal(SECRET, bound_to=ROW)
    assert len(sealed) > 68
    with pytest.raises(KeyProblem):
        Vault(MASTER).unseal(sealed[: min(length, len(sealed) - 1)], bound_to=ROW)


@given(st.text())
def test_any_other_row_is_refused_even_when_it_was_just_unsealed(row: str) -> None:
    vault = Vault(MASTER)
    sealed = vault.seal(SECRET, bound_to=ROW)
    assert vault.unseal(sealed, bound_to=ROW) == SECRET
    if row != ROW:
        with pytest.raises(KeyProblem, match="moved there from another row"):
            vault.unseal(sealed, bound_to=row)


def test_another_key_is_refused_and_both_key_ids_are_named() -> None:
    sealed = Vault(MASTER).seal(SECRET, bound_to=ROW)
    with pytest.raises(KeyProblem) as caught:
        Vault(OTHER_KEY).unseal(sealed, bound_to=ROW)
    message = str(caught.value)
    assert MASTER.key_id in message
    assert f"{OTHER_KEY.key_id}, from another test" in message
    assert ROW in message


def test_a_newer_sealed_form_is_refused() -> None:
    sealed = Vault(MASTER).seal(SECRET, bound_to=ROW)
    with pytest.raises(KeyProblem, match="a newer jobdb wrote it"):
        Vault(MASTER).unseal(b"\x02" + sealed[1:], bound_to=ROW)


def test_resealing_moves_a_secret_to_another_key() -> None:
    sealed = Vault(MASTER).reseal(Vault(MASTER).seal(SECRET, bound_to=ROW), bound_to=ROW, to=Vault(OTHER_KEY))
    assert Vault(OTHER_KEY).unseal(sealed, bound_to=ROW) == SECRET
    with pytest.raises(KeyProblem):
        Vault(MASTER).unseal(sealed, bound_to=ROW)


def test_text_that_cannot_be_encoded_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidInput) as caught:
        Vault(MASTER).seal(SECRET + "\udc80", bound_to=ROW)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_no_secret_in_repr_or_traceback() -> None:
    vault = Vault(MASTER)
    sealed = vault.seal(SECRET, bound_to=ROW)
    assert vault.unseal(sealed, bound_to=ROW) == SECRET
    shown = [repr(vault), str(vault), f"{vault.master}"]
    for wrong in (Vault(OTHER_KEY), vault):
        try:
            wrong.unseal(sealed, bound_to="elsewhere")
        except KeyProblem:
            shown.append(traceback.format_exc())
    assert len(shown) == 5
    for text in shown:
        assert SECRET not in text
        assert MASTER.secret.hex() not in text
        assert repr(MASTER.secret)[2:-1] not in text


def test_the_key_is_looked_up_only_when_it_is_needed(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    vault = Vault.open(env=env)
    assert repr(vault) == "<Vault: master key not looked up yet>"
    vault.forget()
    assert os.listdir(tmp_path) == []
    sealed = vault.seal(SECRET, bound_to=ROW)
    assert (tmp_path / ".config" / "jobdb" / "master.key").exists()
    assert vault.key_id in repr(vault)
    assert Vault.open(create=False, env=env).unseal(sealed, bound_to=ROW) == SECRET


def test_unsealing_creates_no_key(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    sealed = Vault(MASTER).seal(SECRET, bound_to=ROW)
    vault = Vault.open(env=env)
    for wanted in (
        lambda: vault.unseal(sealed, bound_to=ROW),
        lambda: vault.reseal(sealed, bound_to=ROW, to=Vault(MASTER)),
        lambda: vault.key_id,
    ):
        with pytest.raises(KeyProblem, match="there is no master key"):
            wanted()
    assert not vault.has_key(MASTER.key_id)
    assert os.listdir(tmp_path) == []
    made = vault.key_for_first_secret()
    assert vault.has_key(made.key_id) and not vault.has_key(MASTER.key_id)
    assert (tmp_path / ".config" / "jobdb" / "master.key").exists()


def test_a_vault_that_may_not_create_a_key_creates_none(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path)}
    sealed = Vault(MASTER).seal(SECRET, bound_to=ROW)
    with pytest.raises(KeyProblem, match="there is no master key"):
        Vault.open(create=False, env=env).unseal(sealed, bound_to=ROW)
    with pytest.raises(KeyProblem, match="there is no master key"):
        Vault.open(create=False, env=env).seal(SECRET, bound_to=ROW)
    assert os.listdir(tmp_path) == []


def test_evicted_secrets_leave_memory_and_can_be_read_again() -> None:
    vault = Vault(MASTER)
    sealed = vault.seal(SECRET, bound_to=ROW)
    first = vault.unseal(sealed, bound_to=ROW)
    assert vault.unseal(sealed, bound_to=ROW) is first
    vault.forget()
    again = vault.unseal(sealed, bound_to=ROW)
    assert again == first
    assert again is not first


def test_the_cache_is_bounded_and_evicts_the_least_recently_used_secret() -> None:
    vault = Vault(MASTER, cached=2)
    sealed = [vault.seal(f"{SECRET}{n}", bound_to=ROW) for n in range(3)]
    kept = vault.unseal(sealed[0], bound_to=ROW)
    dropped = vault.unseal(sealed[1], bound_to=ROW)
    assert vault.unseal(sealed[0], bound_to=ROW) is kept
    vault.unseal(sealed[2], bound_to=ROW)
    assert vault.unseal(sealed[0], bound_to=ROW) is kept
    assert vault.unseal(sealed[1], bound_to=ROW) is not dropped


def test_threads_that_share_a_vault_look_up_the_key_once() -> None:
    lookups = []

    def find() -> MasterKey:
        lookups.append(1)
        time.sleep(0.05)  # Time for the other threads to look it up as well.
        return MASTER

    vault = Vault(find, cached=8)
    start = threading.Barrier(4)

    def seal_and_unseal(number: int) -> None:
        start.wait(timeout=30)
        for turn in range(200):
            row = f"{ROW}:{number}:{turn % 16}"
            assert vault.unseal(vault.seal(row, bound_to=row), bound_to=row) == row

    assert run_in_threads(partial(seal_and_unseal, number) for number in range(4)) == []
    assert lookups == [1]


def test_a_registry_without_secrets_never_loads_the_cipher() -> None:
    program = (
        "import sys\nfrom jobdb.crypto.vault import Vault\nVault.open()\n"
        "print([m for m in sys.modules if m.startswith(('cryptography', 'keyring', 'logging'))])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def test_sealing_and_unsealing_in_bulk_equals_one_by_one() -> None:
    vault = Vault(MASTER)
    given_many = [(f"{SECRET}{number}", f"{ROW}{number}") for number in range(20)]
    sealed = vault.seal_many(given_many)
    assert len({each[9:21] for each in sealed}) == 20
    assert [vault.unseal(each, bound_to=row) for each, (_, row) in zip(sealed, given_many, strict=True)] == [
        secret for secret, _ in given_many
    ]
    one_by_one = [(vault.seal(secret, bound_to=row), row) for secret, row in given_many]
    assert vault.unseal_many(one_by_one) == [secret for secret, _ in given_many]
    assert vault.seal_many([]) == [] and vault.unseal_many([]) == []


def test_one_bad_secret_among_many_is_named() -> None:
    vault = Vault(MASTER)
    sealed = [(each, ROW) for each in vault.seal_many([(SECRET, ROW)] * 3)]
    with pytest.raises(KeyProblem, match="another row") as caught:
        vault.unseal_many([sealed[0], (sealed[1][0], "token:other:1"), sealed[2]])
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(KeyProblem, match="truncated"):
        vault.unseal_many([(sealed[0][0][:20], ROW)])
    with pytest.raises(KeyProblem, match="the current key is"):
        Vault(OTHER_KEY).unseal_many(sealed)
    with pytest.raises(InvalidInput, match=ROW):
        vault.seal_many([(SECRET, ROW), ("\ud800", ROW)])
