"""Test power cuts on a file system that drops what was not synced. The long versions are in tests/torture."""

import contextlib
from pathlib import Path

import pytest

from jobdb import AlreadyExists, StaleAttempt, StorageFailed
from tests.support.crash.creation import cut_power_during_creation
from tests.support.crash.scenarios import cut_power
from tests.support.lossyfs.mount import LossyMount
from tests.support.registries import Journal, open_registry
from tests.support.requirements import require_fuse


@pytest.fixture(autouse=True)
def _needs() -> None:
    require_fuse(root=True)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_full_durability_loses_nothing_acknowledged(tmp_path: Path, journal: Journal) -> None:
    with LossyMount(tmp_path / "mount", 7, unit=512) as mount:
        report = cut_power(mount, tmp_path, 7, cuts=8, journal=journal)
    print(report)
    assert report.answered > 50
    assert not report.violations


def test_normal_durability_loses_data_so_the_test_can_fail(tmp_path: Path) -> None:
    with LossyMount(tmp_path / "mount", 3) as mount:
        report = cut_power(mount, tmp_path, 3, cuts=40, cuts_per_database=4, durability="normal", stop_at_first=True)
    print(report)
    assert any(sentence.startswith(("I2", "I7")) for sentence in report.violations), (
        "an acknowledgement or an end is lost"
    )


def test_a_database_and_its_key_are_complete_or_can_be_created_again(tmp_path: Path) -> None:
    with LossyMount(tmp_path / "mount", 5) as mount:
        report = cut_power_during_creation(mount, tmp_path, 5, cuts=5)
    print(report)
    assert not report.violations


def test_a_refusal_survives_a_power_cut(tmp_path: Path) -> None:
    """The refusal depends on a commit that its own writer has not synced."""
    with LossyMount(tmp_path / "mount", 11, unit=512) as mount:
        database = mount.folder / "jobs.db"
        open_registry(database, create=True).close()
        writer = open_registry(database, durability="normal", checkpoint_pages=10_000)
        reader = open_registry(database)
        writer.register(agent="a", prompt="", job_id="j")
        with pytest.raises(AlreadyExists):
            reader.register(agent="b", prompt="", job_id="j")
        writer.claim(worker="w", lease_sec=None)
        writer.release("j", attempt=1)
        with pytest.raises(StaleAttempt):
            reader.publish("j", "progress", attempt=1)
        writer.tokens.rotate("j")
        token = reader.tokens.current("j")
        mount.cut()
        for registry in (writer, reader):
            with contextlib.suppress(StorageFailed):
                registry.close(checkpoint=False)
        mount.boot()
        with open_registry(database) as registry:
            job = registry.get("j")
            assert (job.agent, job.attempt, job.status) == ("a", 1, "pending")
            assert registry.tokens.current("j") == token and token[0] == 2
