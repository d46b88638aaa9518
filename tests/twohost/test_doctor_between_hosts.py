"""Test the doctor's findings about a database that two hosts share, and its advice."""

from __future__ import annotations

from collections.abc import Callable

from jobdb import Registry, Vault
from tests.support.twohosts.mount import TwoHosts
from tests.support.workspace import Workspace


def test_wal_on_a_network_file_system(workspace: Workspace, two_hosts: Callable[..., TwoHosts]) -> None:
    hosts = two_hosts("--locks", "server")
    owner = hosts.backing / "jobs.db"
    owner.parent.chmod(0o700)
    with Registry.open(owner, create=True, vault=Vault.open(env=workspace.env)) as registry:
        registry.register(agent="codex", prompt="p")
    workspace.env["JOBDB_URL"] = str(hosts.a / "jobs.db")
    found = workspace.doctor().found("journal", "fail", "in WAL mode", "on the host that owns the disk")
    # The advice is followed on the host to which the disk belongs, under the name that the file has there.
    on_owner = found["fix"].replace("jobdb", f"jobdb --db {owner}", 1)
    diagnosis = workspace.doctor(before=on_owner)
    assert not diagnosis.of("journal")
    # The next step is required then: a peer probe of the two hosts.
    asked = diagnosis.found("open", "fail", "--peer NAME")
    assert "probe" in asked["fix"]
    both = " & ".join(f"jobdb probe {folder} --peer {folder.name} >/dev/null 2>&1" for folder in (hosts.a, hosts.b))
    assert workspace.doctor(before=f"{both} & wait").report["ok"]
