"""Test that the peer probe distinguishes safe networks from unsafe ones, each unsafe in one known way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobdb.errors import UnsafeFileSystem
from jobdb.filesystem.placement import placement_for
from jobdb.filesystem.probe.safe_folder import require_safe_folder
from tests.support.twohosts.mount import TwoHosts, finish, finish_json, start_python
from tests.support.twohosts.probe import PEER, probe_both

QUICK = """
import json, sys
from jobdb.filesystem.probe.local import probe_folder
from jobdb.filesystem.probe.safe_folder import quick_lock_probe
print(json.dumps([quick_lock_probe(sys.argv[1]).as_dict(), probe_folder(sys.argv[1]).as_dict()]))
"""


def failed(report: dict[str, Any]) -> set[str]:
    """Return the names of the failed checks, without the direction."""
    return {check["name"].split(":")[0] for check in report["checks"] if not check["ok"]}


@pytest.mark.parametrize("cache", ["direct", "nfs"])
def test_good_network_passes_and_is_recorded(two_hosts: Callable[..., TwoHosts], cache: str) -> None:
    hosts = two_hosts("--cache", cache, "--locks", "server")
    for folder in (hosts.a, hosts.b):
        placement = placement_for(folder)
        assert (placement.journal, placement.needs_peer_probe) == ("delete", True)
        with pytest.raises(UnsafeFileSystem, match=r"probe .* --peer NAME"):
            require_safe_folder(placement)

    on_a, on_b = probe_both(hosts)

    assert on_a["ok"] and on_b["ok"], on_a
    assert set(on_a["peers"]) == {"a", "b"}
    assert {"hosts-meet", "journal-seen:a->b", "journal-seen:b->a", "nothing-lost"} <= {
        check["name"] for check in on_a["checks"]
    }
    for folder in (hosts.a, hosts.b):
        require_safe_folder(placement_for(folder))
        require_safe_folder(placement_for(folder / "not" / "yet"))
    left = [path.name for path in hosts.backing.iterdir()]
    assert len(left) == 2 and all(name.startswith(".jobdb-probe-passed-") for name in left), left


def test_locks_kept_on_each_host_are_found_only_by_the_peer(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--locks", "local")
    quick, local = finish_json(start_python(QUICK, str(hosts.a)), limit_sec=60)
    assert quick["ok"] and local["ok"]  # one host alone cannot see it, hence the peer probe

    on_a, on_b = probe_both(hosts)

    assert not on_a["ok"] and not on_b["ok"]
    assert {"locks-exclude", "lock-handed-over", "nothing-lost"} <= failed(on_a)
    advice = next(check["advice"] for check in on_a["checks"] if not check["ok"])
    assert "local_lock=none" in advice
    with pytest.raises(UnsafeFileSystem, match=r"probe .* --peer NAME"):
        require_safe_folder(placement_for(hosts.a))
    assert list(hosts.backing.iterdir()) == []


def test_lock_manager_that_is_down_is_named(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--locks", "none")
    quick, local = finish_json(start_python(QUICK, str(hosts.a)), limit_sec=60)
    on_a, _ = probe_both(hosts)
    for report in (quick, local, on_a):
        assert not report["ok"]
        check = next(check for check in report["checks"] if not check["ok"])
        assert "ENOLCK" in check["detail"] and "lock manager" in check["advice"]
    with pytest.raises(UnsafeFileSystem, match="ENOLCK"):
        require_safe_folder(placement_for(hosts.a))
    assert list(hosts.backing.iterdir()) == []


def test_a_cached_missing_name_hides_a_hot_journal(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--neg", "30")
    on_a, _ = probe_both(hosts)
    assert failed(on_a) == {"journal-seen"}
    assert "lookupcache=none" in next(check["advice"] for check in on_a["checks"] if not check["ok"])


def test_a_cached_name_revives_a_committed_journal(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--entry", "3")
    on_a, _ = probe_both(hosts)
    assert failed(on_a) == {"removed-journal-gone"}


def test_a_page_cache_that_is_never_invalidated_is_found(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--cache", "weak")
    on_a, _ = probe_both(hosts)
    assert {"writes-seen", "nothing-lost"} <= failed(on_a)


def test_the_probe_record_is_removed_when_the_network_becomes_unsafe(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--locks", "server")
    probe_both(hosts)
    require_safe_folder(placement_for(hosts.a))
    report = finish_json(start_python(PEER, str(hosts.a), "a", "1"), limit_sec=60)
    assert failed(report) == {"hosts-meet"}
    with pytest.raises(UnsafeFileSystem):
        require_safe_folder(placement_for(hosts.a))


def test_two_processes_on_one_mount_are_not_two_hosts(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--locks", "server")
    running = [start_python(PEER, str(hosts.a), "a", "20") for _ in range(2)]
    for process in running:
        report = finish_json(process, limit_sec=60)
        assert failed(report) == {"hosts-meet"}
        assert "same mount" in report["checks"][0]["detail"]


def test_a_host_without_network_is_reported_in_time(two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--locks", "server")
    program = (
        "import sys\nfrom jobdb.filesystem.probe.local import probe_folder as p\nr = p(sys.argv[1], timeout_sec=2)\n"
    )
    hosts.send_command("cut", 0)
    try:
        found = finish(start_python(program + "print(r.ok, r.checks[0].detail)", str(hosts.a)), limit_sec=60)
    finally:
        hosts.send_command("heal", 0)
    assert found.startswith("False") and "ETIMEDOUT" in found
