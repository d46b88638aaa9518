"""Test the order of an import: jobs are recorded in the order of their creation, across batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobdb import Registry
from jobdb.legacy import Outcome, import_registry
from tests.support.legacy_registry import read_records


def test_the_oldest_pending_job_is_claimed_first(sample: Path, registry: Registry) -> None:
    import_registry(registry, sample)
    pending = sorted(
        (record["created_at"], record["job_id"])
        for name, record in read_records(sample).items()
        if record.get("status") == "pending" and not name.startswith("bad")
    )
    for _, job_id in pending:
        claim = registry.claim(worker="w")
        assert claim is not None and claim.job_id == job_id


@pytest.mark.parametrize("max_batch_jobs", [0, 1000])
@pytest.mark.parametrize("max_bytes", [20_000, 1 << 20])
def test_the_order_holds_across_batches(
    tmp_path: Path,
    registry: Registry,
    make_legacy: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    max_batch_jobs: int,
    max_bytes: int,
) -> None:
    from jobdb.legacy.importing import batches, importer

    make_legacy(tmp_path / "w", jobs=120, damaged=3)
    monkeypatch.setattr(batches, "RUN_LENGTH", 7)
    monkeypatch.setattr(importer, "MAX_BATCH_JOBS", max_batch_jobs)
    limits = {"max_jobs": 11, "max_bytes": max_bytes}
    monkeypatch.setattr(batches.ordered_batches, "__kwdefaults__", limits)
    report = import_registry(registry, tmp_path / "w")
    assert report.counts[Outcome.IMPORTED] == 120
    expected = sorted(
        (record["created_at"], record["job_id"])
        for record in read_records(tmp_path / "w").values()
        if record.get("status") == "pending" and record["prompt"] != "x"
    )
    claimed = [claim.job_id for _ in expected if (claim := registry.claim(worker="w"))]
    assert claimed == [job_id for _, job_id in expected]
    assert import_registry(registry, tmp_path / "w").counts[Outcome.UNCHANGED] == 120 - len(claimed)
