"""Test the check for NFS exports that lose acknowledged commits: found if visible, else mentioned in a warning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobdb.filesystem import nfs_exports
from jobdb.filesystem.mounts import Mount
from jobdb.filesystem.nfs_exports import check_export, parse_etab, read_etab
from jobdb.filesystem.placement import Placement, decide
from jobdb.filesystem.probe.local import probe_folder

ETAB = (
    "/srv/jobs\t*(rw,sync,wdelay,hide,nocrossmnt,secure,root_squash,no_all_squash)\n"
    "/srv/fast\tnorth.example(rw,sync,wdelay)\n"
    "/srv/fast\tsouth.example(rw,async,wdelay)\n"
    "/srv/a\\040folder\t10.0.0.0/8(rw,async)\n"
    "/srv\t*(ro,sync,fsid=0)\n"
    "no export\n"
)


def nfs(source: str, *options: str) -> Placement:
    mount = Mount("/mnt", "nfs4", source, ("rw", "local_lock=none", "lookupcache=none", *options))
    return decide(mount, statfs_magic=None, shared=True, folder="/mnt/x")


def local(folder: str) -> Placement:
    return decide(Mount("/", "ext4", "/dev/sda1", ("rw",)), statfs_magic=None, shared=True, folder=folder)


@pytest.mark.parametrize(
    ("placement", "level"),
    [
        (nfs("far:/srv/jobs", "addr=192.0.2.7"), "warn"),
        (nfs("far:/srv/fast", "addr=192.0.2.7"), "warn"),
        (nfs("far:/srv/fast"), "warn"),
        (nfs("localhost:/srv/jobs", "addr=127.0.0.1"), "ok"),
        (nfs("localhost:/srv/fast", "addr=127.0.0.1"), "fail"),
        (nfs("[::1]:/srv/fast/deeper", "addr=127.0.0.1"), "fail"),
        (nfs("localhost:/fast", "addr=127.0.0.1"), "fail"),
        (nfs("localhost:/a folder", "addr=127.0.0.1"), "fail"),
        (nfs("localhost:/", "addr=127.0.0.1"), "ok"),
        (nfs("localhost:/elsewhere", "addr=127.0.0.1"), "ok"),
        (local("/srv/fast/db"), "fail"),
        (local("/srv/jobs"), "ok"),
        (local("/srv/jobs2"), "ok"),
        (local("/home"), None),
    ],
)
def test_exports_are_checked_for_async(placement: Placement, level: str | None) -> None:
    found = check_export(placement, parse_etab(ETAB))
    assert (found.level if found else None) == level
    if found is not None and level != "ok":
        assert "async" in found.message and "exportfs" in str(found.advice)


def test_a_host_without_exports_cannot_tell(tmp_path: Path) -> None:
    assert read_etab(tmp_path / "etab") == ()
    found = check_export(nfs("localhost:/srv/fast", "addr=127.0.0.1"), ())
    assert found is not None and found.level == "warn" and "cannot be seen from here" in found.message
    assert check_export(local("/srv"), ()) is None


def test_the_probe_reports_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfs_exports, "read_etab", lambda: parse_etab(f"{tmp_path}\t*(rw,async)\n"))
    report = probe_folder(tmp_path, timeout_sec=60)
    assert not report.ok and [check.name for check in report.failures] == ["export-sync"]
    monkeypatch.setattr(
        "jobdb.filesystem.probe.report.placement_for", lambda folder: nfs("far:/srv/jobs", "addr=192.0.2.7")
    )
    report = probe_folder(tmp_path, timeout_sec=60)
    shown = json.loads(json.dumps(report.as_dict()))
    assert shown["ok"] is True and "exportfs -v" in shown["warnings"][0] and "export is sync" in shown["verdict"]
