"""A server of one folder at several mount points, each a "host" with its own caches, locks and memory maps.

    python -m tests.support.twohosts.server [--cache CACHE] [--locks LOCKS] [--neg SECONDS] BACKING MOUNT [MOUNT…]

A program of its own (never run it in a process that touches a mount): speaks the /dev/fuse protocol without
libfuse, mounts by mount(2) as root or by fusermount3 otherwise, prints READY, and unmounts when its input
ends. Its input takes `cut N`, `heal N` and `expire N`: a host loses the network, gets it back, and the
server gives that host's locks away meanwhile. The operations of one host are in host_filesystem.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import threading

from tests.support.fuse.mounting import mount, unmount
from tests.support.twohosts.host_filesystem import Host
from tests.support.twohosts.host_locks import Settings
from tests.support.twohosts.lock_table import LockTable

# cache: the seconds for which attributes and names are kept
_CACHE_SECONDS = {"nfs": (3.0, 0.0), "weak": (1.0, 1.0), "auto": (0.0, 0.0), "direct": (0.0, 0.0)}


class Server:
    """The hosts, and the lock manager between them."""

    def __init__(self, settings: Settings, subtype: str, mount_points: list[str]) -> None:
        self._mount_points: list[str] = []
        self._table = LockTable()
        self._hosts: list[Host] = []
        try:
            for number, mount_point in enumerate(mount_points):
                fd = mount(mount_point, source=f"host:{settings.backing}", subtype=subtype)
                self._mount_points.append(mount_point)
                self._hosts.append(Host(settings, self._table, number, fd))
        except BaseException:
            self._unmount()
            raise

    def serve(self) -> None:
        """Serve until the input ends or a signal comes."""
        for host in self._hosts:
            for loop in (host.serve_requests, host.locks.serve):
                threading.Thread(target=loop, daemon=True).start()
        stop = threading.Event()
        for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signal_number, lambda *_: stop.set())
        print("READY", flush=True)
        while not stop.is_set():
            if select.select([0], [], [], 0.2)[0]:
                text = os.read(0, 4096).decode()
                if not text:
                    break
                for line in text.splitlines():
                    self._run_command(line)
        for host in self._hosts:
            host.heal()  # requests that hang must be answered before the mount can be removed
        self._unmount()
        print(f"grants={self._table.grants} denials={self._table.denials}", flush=True)

    def _run_command(self, line: str) -> None:
        with contextlib.suppress(ValueError):
            verb, number = line.split()
            host = self._hosts[int(number)]
            {"cut": host.cut, "heal": host.heal, "expire": host.expire}[verb]()
            print(f"DONE {line}", flush=True)

    def _unmount(self) -> None:
        for mount_point in self._mount_points:
            unmount(mount_point)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache",
        default="direct",
        choices=sorted(_CACHE_SECONDS),
        help="direct: no page cache but for -shm files; nfs: dropped on open and on locks, as the Linux NFS "
        "client does; weak: dropped never (sshfs, bindfs); auto: dropped when the time of change shows it",
    )
    parser.add_argument(
        "--locks",
        default="server",
        choices=["server", "local", "none", "posix", "flock"],
        help="server: one lock manager for all hosts; local: each host decides alone (nolock, sshfs, nobrl); "
        "none: ENOLCK (lockd is down); posix, flock: this kind by the server, the other kind local",
    )
    parser.add_argument("--neg", type=float, default=0.0, help='cache of "no such file", seconds')
    parser.add_argument("--entry", type=float, help="cache of names, seconds")
    parser.add_argument("--attr", type=float, help="cache of attributes, seconds")
    parser.add_argument("--subtype", default="nfs2host", help="the mount table will say fuse.SUBTYPE")
    parser.add_argument("backing")
    parser.add_argument("mount_points", nargs="+")
    return parser.parse_args()


def main() -> None:
    """Run the server from the command line."""
    given = _arguments()
    attr_sec, entry_sec = _CACHE_SECONDS[given.cache]
    settings = Settings(
        backing=os.path.abspath(given.backing),
        cache=given.cache,
        locks=given.locks,
        attr_sec=attr_sec if given.attr is None else given.attr,
        entry_sec=entry_sec if given.entry is None else given.entry,
        negative_entry_sec=given.neg,
    )
    Server(settings, given.subtype, [os.path.abspath(point) for point in given.mount_points]).serve()
    os._exit(0)  # threads may still wait on a descriptor that no longer answers


if __name__ == "__main__":
    main()
