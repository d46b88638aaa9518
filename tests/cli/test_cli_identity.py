"""Test the command identity: which registry a database is, and the confirmation of a move or copy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def test_a_copied_file_waits_for_confirmation(cli: Any, tmp_path: Path) -> None:
    original = cli("identity", "--json").json
    assert original["in_place"] and original["problem"] is None and len(original["registry_id"]) == 32
    assert original["registry_id"] in cli("identity").out
    job = cli.register("--broker-host", "127.0.0.1", "--broker-port", "9")
    cli("init")  # closes with a checkpoint: the file is whole
    (tmp_path / "copy").mkdir(mode=0o700)
    copy = Path(shutil.copy2(cli.database, tmp_path / "copy" / "jobs.db"))
    on_copy = ("--db", f"sqlite:///{copy}")

    assert cli(*on_copy, "identity", "--json", code=1).json["registry_id"] == original["registry_id"]
    for command in (("relay", "--once"), ("ticket", job), ("subscribe", "-s", "s", "--from-broker")):
        refused = cli(*on_copy, *command, code=5)
        assert "identity --moved" in refused.err and "identity --copy" in refused.err
    cli(*on_copy, "claim", "--job", job)
    published = cli(*on_copy, "publish", job, "started", "--attempt", "1", "--deliver")
    assert published.out == "1\n" and "wait" in published.err

    cli(*on_copy, "identity", "--moved", "--copy", code=2)
    assert cli(*on_copy, "identity", "--moved", "--json").json["registry_id"] == original["registry_id"]
    other = cli(*on_copy, "identity", "--copy", "--json").json
    assert other["in_place"] and other["registry_id"] != original["registry_id"]
    cli(*on_copy, "ticket", job)
    assert cli("identity", "--json").json == original
