"""Run the mutation fuzzer briefly; run ``fuzz_payloads.py`` itself for a long run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobdb.model import Verdict
from tests.protocol import fuzz_payloads as fuzz


def test_no_mutated_payload_verifies() -> None:
    report = fuzz.fuzz_protocol(20_000, seed=20_260_619)
    assert set(report.outcomes) == {"malformed", "unsupported_version", "no_such_key", "bad_signature", "verified"}
    assert min(report.outcomes.values()) >= 20, report.outcomes
    assert report.growth_kib < fuzz.MAX_GROWTH_KIB


def test_no_mutated_payload_is_accepted(tmp_path: Path) -> None:
    report = fuzz.fuzz_registry(5_000, 20_260_620, tmp_path)
    seen = set(report.outcomes)
    assert {"malformed", "unsupported_version", "unknown_job", "unsigned", "revoked_key", "bad_signature"} <= seen
    assert {Verdict.ACCEPTED, Verdict.DUPLICATE} <= seen
    assert report.growth_kib < fuzz.MAX_GROWTH_KIB


def test_the_fuzzer_detects_a_verifier_that_accepts_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def lax(event: Any, token: str, *, legacy: bool = False) -> bool:
        return event.signature is not None

    monkeypatch.setattr(fuzz, "verify", lax)
    with pytest.raises(fuzz.Failure, match="nobody has signed it"):
        fuzz.fuzz_protocol(1_000, seed=1)


def test_the_fuzzer_detects_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def fragile(payload: Any) -> None:
        raise RecursionError

    monkeypatch.setattr(fuzz, "parse", fragile)
    with pytest.raises(fuzz.Failure, match="RecursionError"):
        fuzz.examine(b"{}", fuzz.Corpus(events=[], signed={}))
