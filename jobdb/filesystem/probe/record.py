"""The record that a probe between two hosts has passed, for folders for which no local check suffices.

Written by peer.py, read by safe_folder.py before a database is written to. One small file in the probed folder per host
and mount: a host that was never probed, or that has mounted the folder with other options since, has none.
"""

from __future__ import annotations

import hashlib
import json
import os

from ...system.identifiers import machine_id
from ..placement import Placement, nearest_existing


def record_name(placement: Placement) -> str:
    """Return the name of the record for this host with the folder's current mount."""
    mount = [placement.fs_type, placement.source, placement.mount_point, sorted(placement.options)]
    machine = machine_id() or os.uname().nodename
    digest = hashlib.sha256(json.dumps([machine, mount]).encode("utf-8", "surrogateescape")).hexdigest()
    return f".jobdb-probe-passed-{digest[:24]}"


def has_passed(placement: Placement) -> bool:
    """Return whether a probe between this host and another has passed with this mount.

    It counts in the folder and in those above it on the same mount: how far locks reach depends on the mount.
    """
    name = record_name(placement)
    folder = nearest_existing(placement.folder)
    while not os.path.exists(os.path.join(folder, name)):
        if folder in (placement.mount_point, os.path.dirname(folder)) or not placement.mount_point:
            return False
        folder = os.path.dirname(folder)
    return True
