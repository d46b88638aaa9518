"""The conversion of rows to public objects, and of values to columns. For jobs see job_rows.py.

Called by the verbs, by relay and subscribers, and by the import. Converts values only, and runs no statement; for an
outbox it asks the vault to unseal a password.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ... import model
from ...model import EventKind, JobStatus, from_ms
from .sealer import password_binding

if TYPE_CHECKING:
    from ...crypto.vault import Vault
    from ...model import Broker, Event
    from ..store import Row

# A lookup costs a tenth of a call of the enum, and a page of jobs needs hundreds of them.
STATUSES = {status.value: status for status in JobStatus}
KINDS = {kind.value: kind for kind in EventKind}


def default_topic_prefix(job_id: str) -> str:
    """Return the topic prefix of a job that was registered without one."""
    return f"jobdb/jobs/{job_id}"


@lru_cache(maxsize=256)  # a page of jobs names the same few brokers
def broker_from_json(text: str | None, has_password: bool) -> Broker | None:
    """Parse the stored broker settings of a job, which do not include the password."""
    if text is None:
        return None
    stored = json.loads(text)
    return model.Broker(
        host=stored["host"],
        port=stored.get("port", 1883),
        tls=stored.get("tls", False),
        username=stored.get("username"),
        has_password=has_password,
    )


def broker_to_json(broker: Broker | None) -> str | None:
    """Serialize broker settings for storing; the password is stored separately, sealed."""
    if broker is None:
        return None
    return json.dumps({"host": broker.host, "port": broker.port, "tls": broker.tls, "username": broker.username})


def open_broker(
    vault: Vault, job_id: str, text: str | None, sealed_password: bytes | None
) -> tuple[Broker | None, str | None]:
    """Return a job's broker settings and the unsealed password.

    Raises:
        KeyProblem: the password cannot be decrypted.
    """
    password = None
    if sealed_password is not None:
        password = vault.unseal(sealed_password, bound_to=password_binding(job_id))
    return broker_from_json(text, sealed_password is not None), password


def event_from_row(row: Row) -> Event:
    """Convert a row of job_id, seq, event, attempt, recorded_ms and payload to an event."""
    job_id, seq, kind, attempt, recorded_ms, payload = row
    wire: dict[str, Any] = json.loads(payload)
    recorded_at = from_ms(recorded_ms)
    assert recorded_at is not None
    return model.Event(
        job_id=job_id,
        seq=seq,
        event=KINDS[kind],
        timestamp=wire["timestamp"],
        detail=wire.get("detail") or "",
        data=wire.get("data") or {},
        attempt=attempt,
        recorded_at=recorded_at,
        payload=payload,
    )


def shorten(text: str, most: int = 1000) -> str:
    """Shorten text to ``most`` characters, and replace NUL, which PostgreSQL's text cannot hold."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= most else text[: most - 1] + "…"
