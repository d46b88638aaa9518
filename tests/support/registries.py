"""Registries where the product would refuse WAL: on the lossy mount, which is FUSE but has one host only.

Importing this module replaces `jobdb.engines.sqlite.open.placement_for` for the process; the replacement differs only
for the folders of `open_registry`. Called by tests, the workers and the checker, each in its process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from jobdb import Registry
from jobdb.crypto.vault import Vault
from jobdb.engines.sqlite import placement_check
from jobdb.filesystem.placement import Placement
from tests.support import keys

Journal = Literal["wal", "delete"]
_placements: dict[str, Placement] = {}
_original_placement_for = placement_check.placement_for


def _fake_placement_for(folder: Path, **options: Any) -> Placement:
    return _placements.get(os.path.realpath(folder)) or _original_placement_for(folder, **options)


vars(placement_check)["placement_for"] = _fake_placement_for


def open_registry(
    path: Path,
    *,
    journal: Journal = "wal",
    durability: str = "full",
    create: bool = False,
    checkpoint_pages: int = 20,
    busy_timeout_sec: float = 20.0,
    vault: Vault | None = None,
) -> Registry:
    """Open a registry with a tiny checkpoint threshold, so that checkpoints and WAL restarts are many."""
    placement = Placement(
        folder=str(path.parent),
        fs_type="lossyfs",
        source="",
        mount_point=str(path.parent),
        options=(),
        journal=journal,
        reason="a mount of this host alone",
        advice=None,
        needs_probe=False,
    )
    _placements[os.path.realpath(path.parent)] = placement
    return Registry.open(
        path,
        create=create,
        durability=durability,
        checkpoint_pages=checkpoint_pages,
        busy_timeout_sec=busy_timeout_sec,
        vault=vault or keys.vault(),
    )
