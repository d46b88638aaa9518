"""Test SIGKILL of workers in the middle of their calls. The long version is in tests/torture."""

from pathlib import Path

from tests.support.crash.scenarios import kill_workers


def test_killed_workers_break_no_promise(tmp_path: Path) -> None:
    report = kill_workers(tmp_path, seed=1, kills=40)
    print(report)
    assert report.answered > 100
    assert not report.violations
