"""Whose process is at the other end of a connection on the loopback interface, where the system tells: Linux.

Source: https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

_PROC_NET_TCP = Path("/proc/net/tcp")

Endpoint = tuple[str, int]


def peer_uid(peer: Endpoint, here: Endpoint, *, table: Path = _PROC_NET_TCP) -> int | None:
    """Return the user id of the process that opened a connection to us; None where that cannot be known.

    Args:
        peer: the other end, an IPv4 address and a port.
        here: our end.
        table: the kernel's table of connections.
    """
    try:
        wanted = [_proc_net_format(peer), _proc_net_format(here)]
        lines = table.read_text("ascii").splitlines()[1:]
    except (OSError, ValueError, struct.error):
        return None
    for line in lines:
        columns = line.split()
        if columns[1:3] == wanted:
            return int(columns[7])
    return None


def _proc_net_format(endpoint: Endpoint) -> str:
    """Return a place as the kernel writes it: the address as a number of this machine's byte order, in hex."""
    address, port = endpoint
    (number,) = struct.unpack("=I", socket.inet_aton(address))
    return f"{number:08X}:{port:04X}"
