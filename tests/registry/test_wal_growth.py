"""Test the WAL over twenty thousand events with a stalled reader; tests/torture has a million."""

from pathlib import Path

from tests.support.crash.wal_growth import run_long


def test_the_wal_and_the_memory_stay_bounded(tmp_path: Path) -> None:
    result = run_long(tmp_path, 20_000, checkpoint_pages=60)
    print(result)
    assert not result.violations
