"""A short run of the mutation fuzz; ``make torture`` runs the long one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from jobdb.model import Verdict


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_payloads", Path(__file__).with_name("fuzz_payloads.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_no_mutated_payload_verifies(fuzz: ModuleType) -> None:
    report = fuzz.fuzz_protocol(20_000, seed=20_260_619)
    assert set(report.outcomes) == {"malformed", "unsupported_version", "no_such_key", "bad_signature", "verified"}
    assert min(report.outcomes.values()) >= 20, report.outcomes
    assert report.growth_kib < fuzz.MAX_GROWTH_KIB


def test_no_mutated_payload_is_accepted(fuzz: ModuleType, tmp_path: Path) -> None:
    report = fuzz.fuzz_registry(5_000, 20_260_620, tmp_path)
    seen = set(report.outcomes)
    assert {"malformed", "unsupported_version", "unknown_job", "unsigned", "revoked_key", "bad_signature"} <= seen
    assert {Verdict.ACCEPTED, Verdict.DUPLICATE} <= seen
    assert report.growth_kib < fuzz.MAX_GROWTH_KIB


def test_the_fuzzer_notices_a_verifier_that_lets_all_through(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def lax(event: Any, token: str, *, legacy: bool = False) -> bool:
        return event.signature is not None

    monkeypatch.setattr(fuzz, "verify", lax)
    with pytest.raises(fuzz.Failure, match="nobody has signed it"):
        fuzz.fuzz_protocol(1_000, seed=1)


def test_the_fuzzer_notices_an_exception(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fragile(payload: Any) -> None:
        raise RecursionError

    monkeypatch.setattr(fuzz, "parse", fragile)
    with pytest.raises(fuzz.Failure, match="RecursionError"):
        fuzz.examine(b"{}", fuzz.Corpus(events=[], signed={}))
