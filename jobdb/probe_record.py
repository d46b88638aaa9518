"""The record that a probe between two hosts has passed, for folders where nothing local could tell.

Written by probe_peer.py, asked by probe.py before a database is written to. One small file in the folder
itself for each host and mount, so that a host that was never probed, or is mounted otherwise now, has none.
"""

from __future__ import annotations

import hashlib
import json
import os

from .filesystem import Placement


def record_name(placement: Placement) -> str:
    """The name of the record for this host with the folder's mount as it is now."""
    mount = [placement.fs_type, placement.source, placement.mount_point, sorted(placement.options)]
    digest = hashlib.sha256(json.dumps([_machine(), mount]).encode("utf-8", "surrogateescape")).hexdigest()
    return f".jobdb-probe-passed-{digest[:24]}"


def passed(placement: Placement) -> bool:
    """Whether a probe between this host and another has passed in the folder, with this mount."""
    return os.path.exists(os.path.join(placement.folder, record_name(placement)))


def _machine() -> str:
    """What tells this machine from others and outlives a restart."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            if machine := file.read().strip():
                return machine
    except OSError:
        pass
    return os.uname().nodename
