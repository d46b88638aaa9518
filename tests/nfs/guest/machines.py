"""Three machines on one kernel: a file server and two clients, each with its own network, name and mounts.

Used by scenarios.py in the guest. A `Machine` is a set of namespaces kept alive by a sleeping process; the
kernel keeps an NFS client for each network namespace, so the two clients share no cache.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

LEASE_SEC = 10


class Machine:
    """A machine with its own namespaces, on the common kernel."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._keeper = subprocess.Popen(["unshare", "--mount", "--uts", "--net", "sleep", "1000000"])
        time.sleep(0.5)
        self.run("hostname", name)
        self.run("ip", "link", "set", "lo", "up")
        for folder in ("/run", "/var/lib/nfs"):
            self.run("mount", "-t", "tmpfs", "tmpfs", folder)
        script = (
            "mkdir -p /run/rpcbind /run/sendsigs.omit.d /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/v4recovery"
        )
        self.run("sh", "-c", f"{script}; touch /var/lib/nfs/state /var/lib/nfs/etab /var/lib/nfs/rmtab")

    @property
    def prefix(self) -> list[str]:
        """Return the prefix that makes a command run there."""
        return ["nsenter", "--target", str(self._keeper.pid), "--mount", "--uts", "--net", "--"]

    def run(self, *command: str, limit_sec: float = 90) -> str:
        """Run a command there; raise if it fails."""
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, timeout=limit_sec, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command there."""
        return subprocess.Popen(
            [*self.prefix, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def serve_rpc(self) -> None:
        """Start the services that NFS version 3 needs for its locks."""
        self.run("rpcbind", "-w")
        self.run("rpc.statd", "--no-notify")

    def connect(self, server: Machine, network: int) -> None:
        """Connect the machine to the server's network."""
        here, there = f"to-{server.name}", f"to-{self.name}"
        pids = [str(machine._keeper.pid) for machine in (self, server)]
        command = ["ip", "link", "add", here, "netns", pids[0], "type", "veth", "peer", "name", there]
        subprocess.run([*command, "netns", pids[1]], check=True, timeout=30)
        for machine, device, address in ((self, here, 2), (server, there, 1)):
            machine.run("ip", "addr", "add", f"10.0.{network}.{address}/24", "dev", device)
            machine.run("ip", "link", "set", device, "up")
        self.server_address = f"10.0.{network}.1"
        self._cable = (server, there)

    def cut(self) -> None:
        """Disconnect the machine."""
        server, device = self._cable
        server.run("ip", "link", "set", device, "down")

    def heal(self) -> None:
        """Reconnect the machine."""
        server, device = self._cable
        server.run("ip", "link", "set", device, "up")

    def mount(self, options: str) -> None:
        """Mount the server's folder at /mnt, in place of what was mounted there."""
        self.unmount()
        path = "/srv/jobs" if "vers=3" in options else "/"
        self.run("mount", "-t", "nfs", "-o", options, f"{self.server_address}:{path}", "/mnt")

    def unmount(self) -> None:
        """Unmount, if anything is mounted."""
        if " /mnt nfs" in self.run("cat", "/proc/mounts"):
            self.run("umount", "-f", "-l", "/mnt")  # a scenario that failed may have left a process in it


def start_server() -> Machine:
    """A machine that exports /srv/jobs by NFS 3 and 4.2, with leases and grace of ten seconds."""
    Path("/srv/jobs").mkdir(parents=True, exist_ok=True)
    Path("/etc/exports").write_text("/srv/jobs *(rw,sync,no_root_squash,no_subtree_check,fsid=0,insecure)\n")
    for name in ("nlm_grace_period", "nlm_timeout"):
        Path(f"/proc/sys/fs/nfs/{name}").write_text(str(LEASE_SEC if name == "nlm_grace_period" else 3))
    server = Machine("server")
    server.run("mount", "-t", "tmpfs", "tmpfs", "/srv/jobs")
    server.run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    for name in ("nfsv4leasetime", "nfsv4gracetime"):
        server.run("sh", "-c", f"echo {LEASE_SEC} > /proc/fs/nfsd/{name}")
    server.serve_rpc()
    server.run("exportfs", "-ra")
    server.run("rpc.mountd")
    server.run("rpc.nfsd", "8")
    return server
