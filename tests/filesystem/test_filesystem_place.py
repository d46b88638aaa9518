"""Test `placement_for` on the live system: links, missing folders, bind mounts and overlays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobdb.errors import UnsafeFileSystem
from jobdb.filesystem.mounts import parse_mountinfo
from jobdb.filesystem.placement import decide, placement_for, refuse_mounted_file, statfs_magic
from jobdb.filesystem.probe.safe_folder import require_safe_folder
from tests.support.requirements import needs, on_linux, require

linux_only = on_linux("has these mounts")

PLACE = (
    "import json, sys; from jobdb.filesystem.placement import placement_for; "
    "print(json.dumps(placement_for(sys.argv[1]).as_dict()))"
)


@linux_only
def test_a_missing_folder_has_the_placement_of_its_nearest_parent(tmp_path: Path) -> None:
    assert placement_for(tmp_path / "not" / "yet").journal == placement_for(tmp_path).journal
    assert placement_for(tmp_path / "not" / "yet").folder == str(tmp_path / "not" / "yet")


@linux_only
def test_links_are_followed_even_if_their_target_is_missing(tmp_path: Path) -> None:
    require(Path("/dev/shm").is_dir(), "there is no /dev/shm")
    link = tmp_path / "link"
    link.symlink_to("/dev/shm/jobdb-not-there")
    assert placement_for(link / "deeper").fs_type == placement_for("/dev/shm").fs_type
    assert placement_for(link).folder == "/dev/shm/jobdb-not-there"


@linux_only
def test_statfs_returns_the_known_numbers() -> None:
    assert statfs_magic("/proc") == 0x9FA0
    assert statfs_magic("/no/such/path") is None


@linux_only
def test_local_folder_needs_no_probe_and_writes_nothing(tmp_path: Path) -> None:
    placement = placement_for(tmp_path)
    require(placement.journal == "wal", f"the temporary folder is on {placement.fs_type}")
    require_safe_folder(placement)
    assert list(tmp_path.iterdir()) == []


def test_refused_folder_is_refused_with_reason_and_advice() -> None:
    (mount,) = parse_mountinfo("36 27 0:52 / /data rw - nfs4 filer:/x rw,local_lock=none\n")
    with pytest.raises(UnsafeFileSystem, match=r"lookupcache=none.*mount -t nfs"):
        require_safe_folder(decide(mount, statfs_magic=None, shared=False))


def run_in_mount_namespace(script: str, asked: Path) -> dict[str, object]:
    """Run `placement_for` after a shell script, in a separate mount namespace."""
    command = f"{script}\nexec {sys.executable} -c '{PLACE}' '{asked}'"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", command], capture_output=True, text=True, timeout=60, check=False
    )
    mounted = done.returncode == 0 or not ("unshare" in done.stderr or "mount" in done.stderr)
    require(mounted, f"a test cannot have mounts of its own here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


needs_root = needs(os.geteuid() == 0, "mounting needs root")


@linux_only
@needs_root
def test_a_bind_mount_and_a_mount_over_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    bind = f"mount -t tmpfs inner {tmp_path}/a; mkdir {tmp_path}/a/x; mount --bind {tmp_path}/a/x {tmp_path}/b"
    found = run_in_mount_namespace(bind, tmp_path / "b" / "later")
    assert (found["fs_type"], found["source"], found["mount_point"]) == ("tmpfs", "inner", f"{tmp_path}/b")
    covered = run_in_mount_namespace(f"{bind}; mount -t tmpfs cover {tmp_path}", tmp_path / "b")
    assert (found["journal"], covered["source"]) == ("wal", "cover")


@linux_only
@needs_root
def test_overlay_is_decided_by_its_upper_folder(tmp_path: Path) -> None:
    layers = f"{tmp_path}/layers"
    script = (
        f"mkdir {layers} {tmp_path}/o; mount -t tmpfs upper {layers}; mkdir {layers}/l {layers}/u {layers}/w;"
        f"mount -t overlay overlay -o lowerdir={layers}/l,upperdir={layers}/u,workdir={layers}/w {tmp_path}/o"
    )
    found = run_in_mount_namespace(script, tmp_path / "o")
    assert (found["fs_type"], found["journal"]) == ("overlay", "wal")
    assert "upper folder is on tmpfs" in str(found["reason"])


def test_a_file_that_is_a_mount_is_refused_everywhere() -> None:
    table = (
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "36 20 0:52 /jobs.db /app/jobs.db rw - nfs4 filer:/x rw,local_lock=none,lookupcache=none\n"
    )
    mounts = parse_mountinfo(table)
    local = decide(mounts[0], statfs_magic=None, shared=False, folder="/app")
    assert refuse_mounted_file(local, "/app/other.db", mounts) == local
    refused = refuse_mounted_file(local, "/app/jobs.db", mounts)
    assert refused.refused and refused.fs_type == "nfs4"
    with pytest.raises(UnsafeFileSystem, match="mount the folder"):
        require_safe_folder(refused)


@linux_only
@needs_root
def test_a_database_that_is_mounted_as_a_single_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    script = f"""
jobdb() {{ {sys.executable} -m jobdb.cli "$@"; }}
jobdb --db {tmp_path}/there/jobs.db init 2>/dev/null
touch {tmp_path}/here/jobs.db
mount --bind {tmp_path}/there/jobs.db {tmp_path}/here/jobs.db
for command in "register --agent a hello" "init --shared" "migrate" "doctor"; do
    jobdb --db {tmp_path}/here/jobs.db $command 2>&1 && exit 9
done
ls {tmp_path}/here
"""
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    mounted = not ("unshare" in done.stderr or "mount: " in done.stderr)
    require(mounted, f"a test cannot have mounts of its own here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("mount the folder that holds the database") == 4
    assert done.stdout.rstrip().endswith("\njobs.db")  # and nothing beside it
