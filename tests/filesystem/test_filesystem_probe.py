"""Test the probe on a local folder, where every check must pass, and the behaviour of its helper."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobdb.filesystem.probe.checks import LOCAL_PLAN, run_plan
from jobdb.filesystem.probe.failures import PartyError
from jobdb.filesystem.probe.local import probe_folder
from jobdb.filesystem.probe.parties import LocalParty
from jobdb.filesystem.probe.peer import probe_peer
from jobdb.filesystem.probe.safe_folder import quick_lock_probe


def test_a_good_folder_passes_and_is_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_text("not ours")
    report = probe_folder(tmp_path, timeout_sec=60)
    assert report.ok, report.failures
    assert [check.name for check in report.checks] == [
        "locks-exclude", "lock-handed-over", "killed-holder-lets-go", "writes-seen", "journal-seen",
        "removed-journal-gone", "rename-seen", "nothing-lost",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.db"]
    assert "safe" in report.verdict
    shown = json.loads(json.dumps(report.as_dict()))
    assert shown["ok"] is True and shown["kind"] == "local"


def test_a_quick_probe_passes_and_leaves_the_folder_unchanged(tmp_path: Path) -> None:
    fastest = min(quick_lock_probe(tmp_path).took_sec for _ in range(5))
    assert fastest < 0.1
    assert quick_lock_probe(tmp_path).ok
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("probe", [quick_lock_probe, probe_folder])
def test_a_missing_folder_fails_with_a_reason(tmp_path: Path, probe: object) -> None:
    report = probe(tmp_path / "nowhere")  # type: ignore[operator]
    assert not report.ok and "ENOENT" in report.failures[0].detail and report.failures[0].advice


def test_a_peer_probe_without_a_peer_times_out_and_says_what_to_do(tmp_path: Path) -> None:
    report = probe_peer(tmp_path, name="alone", timeout_sec=0.5)
    assert not report.ok and report.took_sec < 30
    assert "another host" in str(report.failures[0].advice)
    assert list(tmp_path.iterdir()) == []


def test_checks_stop_at_the_timeout(tmp_path: Path) -> None:
    with LocalParty(tmp_path, limit_sec=10) as a, LocalParty(tmp_path, limit_sec=10) as b:
        checks = run_plan(LOCAL_PLAN, a, b, first_label="a", second_label="b", end=time.monotonic() - 1)
    assert [check.name for check in checks] == ["time"] and not checks[0].ok


def test_helper_does_not_leave_its_folder_through_a_link(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("kept")
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside)
    with LocalParty(inside, limit_sec=10) as party:
        with pytest.raises(PartyError) as failure:
            party.call("read", name="link")
        assert failure.value.errno == errno.ELOOP
        with pytest.raises(PartyError):
            party.call("open", name="link")
    with LocalParty(inside, "folder", limit_sec=10) as party, pytest.raises(PartyError):
        party.call("listing")


def test_cleanup_empties_no_folder_behind_a_link(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "jobs.db").write_text("kept")
    (inside / "arena").symlink_to(outside)
    (inside / "own").mkdir()
    (inside / "own" / "scratch").write_text("")
    with LocalParty(inside, limit_sec=10) as party:
        assert party.call("remove_folder", name="arena", recursive=True) is False
        assert party.call("remove_folder", name="own", recursive=True) is True
    assert (outside / "jobs.db").read_text() == "kept" and not (inside / "own").exists()


@pytest.mark.parametrize("probe", ["probe_folder(folder)", "probe_peer(folder, name='alone', timeout_sec=60)"])
def test_an_interrupted_probe_leaves_nothing_behind(tmp_path: Path, probe: str) -> None:
    script = (
        "import sys; from jobdb.filesystem.probe.local import probe_folder; "
        f"from jobdb.filesystem.probe.peer import probe_peer; folder = sys.argv[1]; {probe}"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not any(path.is_dir() and any(path.iterdir()) for path in tmp_path.iterdir()):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does, which signals the whole foreground process group
    _, stderr = running.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_helper_that_dies_is_reported_at_once(tmp_path: Path) -> None:
    with LocalParty(tmp_path, limit_sec=10) as party:
        assert party.call("exists", name="x") is False
        os.kill(party._process.pid, 9)
        party._process.wait(timeout=10)
        with pytest.raises(PartyError) as failure:
            party.call("exists", name="x")
        assert failure.value.errno == errno.ESRCH


def test_a_missing_answer_is_a_timeout(tmp_path: Path) -> None:
    with LocalParty(tmp_path, limit_sec=0.3) as party:
        party.call("open", name="f")
        with pytest.raises(PartyError) as failure:
            party.call("count", name="f", seconds=30)
        assert failure.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize(
    "order",
    [
        {"do": "remove", "arguments": {"name": "../jobs.db"}},
        {"do": "remove", "arguments": {"name": "/etc/passwd"}},
        {"do": "remove_folder", "arguments": {"name": "x", "emptied": True}},
        {"do": "rename", "arguments": {"src": "a", "dst": "../b"}},
        {"do": "create", "arguments": {"name": 7, "text": ""}},
        {"do": ["open"], "arguments": {"name": "x"}},
        {"do": "open", "arguments": {"name": "x", "operation": "remove"}},
        {"do": "open", "arguments": {"name": "x", "self": 1}},
        {"do": "open"},
        {},
    ],
)
def test_messages_can_only_request_the_probes_own_operations(tmp_path: Path, order: dict[str, object]) -> None:
    from jobdb.filesystem.probe.peer import _execute

    scratch = tmp_path / "arena"
    scratch.mkdir()
    (tmp_path / "jobs.db").write_text("kept")
    with LocalParty(scratch, limit_sec=10) as party:
        assert _execute(party, order) == {"errno": errno.EINVAL}
    assert (tmp_path / "jobs.db").read_text() == "kept"


@pytest.mark.parametrize(
    "answer", [{"errno": "x"}, {"errno": 10**30}, {"errno": None}, {"value": {}}, {"value": "a"}, {"value": None}, {}]
)
def test_a_senseless_answer_fails_the_check(tmp_path: Path, answer: dict[str, object]) -> None:
    from jobdb.filesystem.probe.peer import RemoteParty

    class FakeMailbox:
        """Another host that answers everything in one way."""

        def send(self, number: int, content: dict[str, object]) -> None: ...

        def receive(self, number: int, *, limit_sec: float) -> dict[str, object]:
            return answer

    plan = [entry for entry in LOCAL_PLAN if entry[0] == "nothing-lost"]
    with LocalParty(tmp_path, limit_sec=10) as party:
        checks = run_plan(
            plan, party, RemoteParty(FakeMailbox()), first_label="a", second_label="b", end=time.monotonic() + 60
        )  # type: ignore[arg-type]
    assert [check.ok for check in checks] == [False]


def test_a_deeply_nested_message_is_ignored(tmp_path: Path) -> None:
    from jobdb.filesystem.probe.peer import _Mailbox

    (tmp_path / "letter").write_text("[" * 500_000)
    with LocalParty(tmp_path, limit_sec=10) as party:
        assert _Mailbox(party, "me").read("letter") is None


def test_text_from_the_other_host_is_shown_without_control_characters() -> None:
    from jobdb.filesystem.probe.peer import _parse_checks

    raw_check = {"name": "x\x1b[31m", "ok": "yes", "detail": "a\nb", "advice": "\x07c"}
    (check,) = _parse_checks({"arguments": {"checks": [raw_check]}})
    assert (check.name, check.ok, check.detail, check.advice) == ("x[31m", False, "ab", "c")
    assert not _parse_checks({"arguments": None})[0].ok


def test_a_probe_record_applies_only_to_the_mount_it_was_made_on(tmp_path: Path) -> None:

    from jobdb.filesystem.placement import Placement
    from jobdb.filesystem.probe.record import has_passed, record_name

    (tmp_path / "registry").mkdir()
    placement = Placement(
        folder=str(tmp_path / "registry" / "later"),
        fs_type="fuse.some",
        source="server:/x",
        mount_point=str(tmp_path),
        options=("rw", "locks=server"),
        journal="delete",
        reason="",
        advice=None,
        needs_probe=True,
        needs_peer_probe=True,
    )
    assert not has_passed(placement)
    (tmp_path / record_name(placement)).touch()
    assert has_passed(placement)
    assert has_passed(placement._replace(folder=str(tmp_path)))
    assert not has_passed(placement._replace(options=("rw", "locks=local")))
    assert not has_passed(placement._replace(source="other:/x"))
    # A record above the mount point belongs to another file system.
    assert not has_passed(placement._replace(mount_point=str(tmp_path / "registry")))
