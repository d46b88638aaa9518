"""Do what the old registry's publish script did, to compare how long a command takes.

Run by cold_start.py as ``python old_publish.py FOLDER JOB EVENT DETAIL``. It imports what the old script imported,
including the MQTT client, but sends to no broker: that part of the time is left out.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import hmac
import json
import os
import tempfile
import time
from pathlib import Path

import paho.mqtt.publish


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("job")
    parser.add_argument("event", choices=("started", "progress", "permission_required", "completed", "error"))
    parser.add_argument("detail")
    arguments = parser.parse_args()
    path = arguments.folder / f"{arguments.job}.json"
    with open(arguments.folder / ".lock", "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = json.loads(path.read_text("utf-8"))
        record["last_seq"] += 1
        record["updated_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        handle, temporary = tempfile.mkstemp(dir=arguments.folder, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        payload = {
            "schema_version": 1,
            "seq": record["last_seq"],
            "job_id": arguments.job,
            "event": arguments.event,
            "timestamp": record["updated_at"],
            "detail": arguments.detail,
            "data": {},
        }
        canonical = json.dumps(payload, sort_keys=True, separators=(",", ":"))
        signature = hmac.new(record["auth_token"].encode(), canonical.encode(), hashlib.sha256).hexdigest()
        payload["data"] = {"hmac_sig": signature}
        with open(arguments.folder / f"{arguments.job}.events.log", "a", encoding="utf-8") as log:
            log.write(json.dumps(payload) + "\n")
    assert paho.mqtt.publish.single is not None


if __name__ == "__main__":
    main()
