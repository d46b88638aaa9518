"""The user of the process at the other end of a loopback connection, on Linux.

Called by ``access`` for each request; reads the kernel's connection table.
Source: https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

_PROC_NET_TCP = Path("/proc/net/tcp")

Endpoint = tuple[str, int]


def peer_uid(peer: Endpoint, local: Endpoint, *, table: Path = _PROC_NET_TCP) -> int | None:
    """Return the user id of the process that opened a connection to us; None if unknown.

    Args:
        peer: the other end, an IPv4 address and a port.
        local: our end.
        table: the kernel's connection table.
    """
    try:
        wanted = [_proc_net_format(peer), _proc_net_format(local)]
        lines = table.read_text("ascii").splitlines()[1:]
    except (OSError, ValueError, struct.error):
        return None
    for line in lines:
        columns = line.split()
        if columns[1:3] == wanted:
            return int(columns[7])
    return None


def _proc_net_format(endpoint: Endpoint) -> str:
    """Return an endpoint in the kernel's format: the address as a number in this machine's byte order, in hex."""
    address, port = endpoint
    (number,) = struct.unpack("=I", socket.inet_aton(address))
    return f"{number:08X}:{port:04X}"
