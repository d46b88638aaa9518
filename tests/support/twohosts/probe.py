"""The peer probe, run on both hosts at once."""

from __future__ import annotations

from typing import Any

from tests.support.twohosts.mount import TwoHosts, finish_json, start_python

PEER = """
import json, sys
from jobdb.filesystem.probe.peer import probe_peer
print(json.dumps(probe_peer(sys.argv[1], name=sys.argv[2], timeout_sec=float(sys.argv[3])).as_dict()))
"""


def probe_both(hosts: TwoHosts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the probe on both hosts at once; return both reports."""
    running = [start_python(PEER, str(folder), folder.name, "30") for folder in (hosts.a, hosts.b)]
    on_a, on_b = (finish_json(process, limit_sec=100) for process in running)
    assert {check["name"]: check["ok"] for check in on_a["checks"]} == {
        check["name"]: check["ok"] for check in on_b["checks"]
    }
    return on_a, on_b
