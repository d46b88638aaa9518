"""Run the long scenarios: thousands of kills, hundreds of power cuts, errors everywhere, a million events.

``make torture`` runs them and shows what each did and found. JOBDB_TORTURE_SEED repeats a run; the seed is printed.
"""

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.crash.creation import cut_power_during_creation
from tests.support.crash.disk_errors import fail_at_points, fail_under_load, fill_disk
from tests.support.crash.registry_machine import RegistryMachine
from tests.support.crash.scenarios import Report, cut_power, kill_workers
from tests.support.crash.wal_growth import run_long
from tests.support.lossyfs.mount import LossyMount
from tests.support.lossyfs.tree import NameDurability
from tests.support.registries import Journal
from tests.support.requirements import require_fuse

SEED = int(os.environ.get("JOBDB_TORTURE_SEED", time.time_ns() // 10**6 % 10**6))
LIMIT_SEC = 3600


def show(report: Report) -> None:
    print(f"\nJOBDB_TORTURE_SEED={SEED}\n{report}")


def test_three_thousand_kills(tmp_path: Path) -> None:
    report = kill_workers(tmp_path, SEED, kills=3000)
    show(report)
    assert not report.violations


@pytest.mark.parametrize(
    ("unit", "names", "sync_delay_ms"),
    [(4096, "posix", 0.0), (512, "posix", 0.0), (4096, "ext4", 0.0), (512, "posix", 4.0)],
)
def test_power_cuts_at_full_durability_lose_nothing(
    tmp_path: Path, unit: int, names: NameDurability, sync_delay_ms: float
) -> None:
    require_fuse(root=True)
    with LossyMount(
        tmp_path / "mount", SEED, unit=unit, names=names, sync_delay_ms=sync_delay_ms, limit_sec=LIMIT_SEC
    ) as mount:
        report = cut_power(mount, tmp_path, SEED, cuts=150)
    show(report)
    assert not report.violations


def test_power_cuts_with_a_rollback_journal_lose_nothing(tmp_path: Path) -> None:
    require_fuse(root=True)
    with LossyMount(tmp_path / "mount", SEED, unit=512, limit_sec=LIMIT_SEC) as mount:
        report = cut_power(mount, tmp_path, SEED, cuts=150, journal="delete")
    show(report)
    assert not report.violations


def test_power_cuts_at_normal_durability_lose_data(tmp_path: Path) -> None:
    require_fuse(root=True)
    with LossyMount(tmp_path / "mount", SEED, limit_sec=LIMIT_SEC) as mount:
        report = cut_power(mount, tmp_path, SEED, cuts=60, cuts_per_database=4, durability="normal")
    show(report)
    assert any(sentence.startswith("I2") for sentence in report.violations)
    assert not any("integrity_check" in sentence for sentence in report.violations)


def test_power_cuts_during_creation(tmp_path: Path) -> None:
    require_fuse(root=True)
    with LossyMount(tmp_path / "mount", SEED, limit_sec=LIMIT_SEC) as mount:
        report = cut_power_during_creation(mount, tmp_path, SEED, cuts=150)
    show(report)
    assert not report.violations


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_errors_at_single_requests(tmp_path: Path, journal: Journal) -> None:
    require_fuse(root=True)
    with LossyMount(tmp_path / "mount", SEED, direct=True, limit_sec=LIMIT_SEC) as mount:
        report = fail_at_points(mount, tmp_path, SEED, points=800, journal=journal)
        print(mount.stats())
    show(report)
    assert not report.violations


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_errors_under_load(tmp_path: Path, journal: Journal) -> None:
    require_fuse(root=True)
    with LossyMount(tmp_path / "mount", SEED, direct=True, limit_sec=LIMIT_SEC) as mount:
        report = fail_under_load(mount, tmp_path, SEED, rounds=80, journal=journal)
        print(mount.stats())
    show(report)
    assert not report.violations


def test_full_disks_of_every_size(tmp_path: Path) -> None:
    require_fuse(root=True)
    report = fill_disk(tmp_path, SEED, sizes=range(4, 1200, 4))
    show(report)
    assert not report.violations


def test_a_million_events(tmp_path: Path) -> None:
    result = run_long(tmp_path, 1_000_000)
    print(f"\n{result}")
    assert not result.violations


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(
    max_examples=2000, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
