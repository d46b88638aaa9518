"""Issuing tickets for the current attempt of a job. Called by ``jobdb ticket`` and by applications."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ..engines.identity import read_identity, require_place
from ..errors import IllegalTransition, InvalidInput, UnknownJob
from .settings import Environment
from .statements import OUTBOX
from .ticket import Ticket

if TYPE_CHECKING:
    from ..registry import Registry


def issue_ticket(registry: Registry, job_id: str, *, environment: Environment | None = None) -> Ticket:
    """Return a ticket for a job's current attempt.

    While it is in use, the job's events should be published only with it: it numbers them independently.

    Args:
        registry: the registry with the job.
        job_id: the job, usually a claimed one.
        environment: names the broker if the job's record has none; read now if None.

    Raises:
        UnknownJob: there is no job with that id.
        IllegalTransition: the job has ended.
        InvalidInput: neither the job nor the environment names a broker.
        MovedOrCopied: the database may be a copy, and the original issues tickets for the same job.
    """
    store = registry.store
    require_place(store)
    job = registry.get(job_id)
    if job.terminal:
        raise IllegalTransition(f"job {job_id} has ended as {job.status}; a ticket for it cannot be used")
    environment = environment or Environment.read()
    broker, password = registry.engine.broker(job_id)
    if broker is None:
        broker, password = environment.as_record()
    if broker is None:
        raise InvalidInput(
            f"job {job_id} has no broker that a ticket could name",
            advice="register the job with a broker, or set MQTT_BROKER",
            command="register it with --broker-host, or set MQTT_BROKER",
        )
    settings = environment.settings(broker, password)
    kid, token = (0, None) if job.auth == "never" else registry.tokens.current(job_id)
    registry_id = read_identity(store).registry_id
    with store.read() as tx:
        row = tx.one(OUTBOX.job_instance, job_id=job_id)
    if row is None:
        raise UnknownJob(job_id)
    store.sync()  # the ticket leaves this host: the claim that it names must survive a power failure
    return Ticket(
        job_id=job.job_id,
        topic=job.topic,
        host=settings.host,
        port=settings.port,
        tls=settings.tls,
        username=settings.username,
        password=settings.password,
        token=token,
        kid=kid,
        attempt=job.attempt,
        next_seq=job.last_seq + 1,
        registry_id=registry_id,
        job_instance=_instance(registry_id, *row),
    )


def _instance(registry_id: str, number: int, created_ms: int) -> str:
    """Return a name for a job that is never reused, unlike its id and its number after a prune."""
    return hashlib.sha256(f"{registry_id} {number} {created_ms}".encode()).hexdigest()[:32]
