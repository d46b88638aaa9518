"""Tickets: what a worker on another machine needs to publish signed events of one job, in one file.

A ticket is a secret: it holds the job's token and the broker's password in clear, because the other machine has neither
this database nor its master key. It is written with mode 0600 and refused on reading when others may read it. It is
bound to one attempt: when the job is claimed anew, what the old ticket's holder still sends is refused at accept.

Called by ``jobdb ticket`` (which issues) and ``publish --ticket`` and ``relay --ticket`` (which read).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.protocol import JOB_ID_PATTERN, MAX_KID, MAX_SEQ
from ..engines.identity import read_identity, require_place
from ..errors import IllegalTransition, InvalidInput, StorageFailed, UnknownJob
from ..filesystem.folder_sync import sync_folder
from ..registry import Registry
from .outbox import RELAY
from .settings import BrokerSettings, Environment

VERSION = 1
_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to publish one job's events under one attempt.

    Attributes:
        job_id: the job.
        topic: where its events go.
        host, port, tls, username: the broker.
        password: for the broker; in no repr.
        token: signs the events; in no repr; None for a job without.
        kid: the token's version; 0 without a token.
        attempt: the claim that the events belong to; 0 before the first claim.
        next_seq: the number of the next event when the ticket was issued.
        registry_id: the registry that issued it; None in a ticket of an older version.
        job_instance: tells the job from others that have or had its id there, 32 hex digits; None likewise.
    """

    job_id: str
    topic: str
    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None = field(repr=False)
    token: str | None = field(repr=False)
    kid: int
    attempt: int
    next_seq: int
    registry_id: str | None = None
    job_instance: str | None = None

    def settings(self, environment: Environment) -> BrokerSettings:
        """The way to the broker, completed by this machine's environment (certificates)."""
        from ..model import Broker

        record = Broker(self.host, self.port, self.tls, self.username, self.password is not None)
        return environment.settings(record, self.password)

    def as_json(self) -> str:
        """The file's content: secrets in clear."""
        content: dict[str, Any] = {
            "jobdb_ticket": VERSION,
            "job_id": self.job_id,
            "topic": self.topic,
            "broker": {
                "host": self.host,
                "port": self.port,
                "tls": self.tls,
                "username": self.username,
                "password": self.password,
            },
            "token": self.token,
            "kid": self.kid,
            "attempt": self.attempt,
            "next_seq": self.next_seq,
            "registry_id": self.registry_id,
            "job_instance": self.job_instance,
        }
        return json.dumps(content, indent=2) + "\n"


def issue_ticket(registry: Registry, job_id: str, *, environment: Environment | None = None) -> Ticket:
    """The ticket for a job's present attempt.

    While it is in use, the job's events should come through it alone: it numbers them on its own.

    Args:
        registry: where the job is.
        job_id: the job; claimed already, as a rule.
        environment: names the broker where the job's record has none; read now when None.

    Raises:
        UnknownJob: there is none of that id.
        IllegalTransition: the job has ended.
        InvalidInput: neither the job nor the environment names a broker.
        MovedOrCopied: the database may be a copy, and the original issues tickets for the same job.
    """
    store = registry.store
    require_place(store)
    job = registry.get(job_id)
    if job.terminal:
        raise IllegalTransition(f"job {job_id} has ended as {job.status}; a ticket for it would be of no use")
    environment = environment or Environment.read()
    broker, password = registry.engine.broker(job_id)
    if broker is None:
        broker, password = environment.as_record()
    if broker is None:
        raise InvalidInput(
            f"job {job_id} has no broker, so a ticket would lead nowhere; register it with --broker-host, "
            "or set MQTT_BROKER"
        )
    settings = environment.settings(broker, password)
    kid, token = (0, None) if job.auth == "never" else registry.engine.token(job_id, kid=None)
    registry_id = read_identity(store).registry_id
    with store.read() as tx:
        row = tx.one(RELAY.job_instance, job_id=job_id)
    if row is None:
        raise UnknownJob(job_id)
    store.sync()  # the ticket leaves this host: the claim that it names must not be undone
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
    """Name a job for good: neither its id nor its number does, both are given again after a prune."""
    return hashlib.sha256(f"{registry_id} {number} {created_ms}".encode()).hexdigest()[:32]


def write_ticket(ticket: Ticket, path: Path) -> None:
    """Writes a new file of mode 0600; on disk when this returns.

    Raises:
        InvalidInput: there is a file of that name.
        StorageFailed: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InvalidInput(f"{path} is there already; remove it, or name another file with --output") from None
    except OSError as error:
        raise StorageFailed(
            f"cannot write the ticket {path}: {error.strerror}; name another place with --output"
        ) from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(ticket.as_json())
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.absolute().parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageFailed(f"cannot write the ticket {path}: {error.strerror}; is the disk full?") from error


def read_ticket(path: Path) -> Ticket:
    """Reads a ticket's file.

    Raises:
        InvalidInput: it cannot be read, others may read it, or it is no ticket. The message repeats none of it.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read the ticket {path}: {error.strerror}") from error
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput(
            f"the ticket {path} has mode {stat.S_IMODE(mode):04o}: others can use the secrets in it; chmod 600 {path}"
        )
    ticket = _parse_ticket(content)
    if ticket is None:
        raise InvalidInput(f"{path} is not a ticket of this version of jobdb; make one with 'jobdb ticket JOB'")
    return ticket


def _parse_ticket(content: bytes) -> Ticket | None:
    """None instead of an error, so that none carries what the file holds."""
    import re

    try:
        found = json.loads(content)
        broker = found["broker"]
        ticket = Ticket(
            job_id=found["job_id"],
            topic=found["topic"],
            host=broker["host"],
            port=broker["port"],
            tls=broker["tls"],
            username=broker["username"],
            password=broker["password"],
            token=found["token"],
            kid=found["kid"],
            attempt=found["attempt"],
            next_seq=found["next_seq"],
            registry_id=found.get("registry_id"),
            job_instance=found.get("job_instance"),
        )
        version = found["jobdb_ticket"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = (ticket.job_id, ticket.topic, ticket.host)
    optional = (ticket.username, ticket.password, ticket.token)
    sound = (
        version == VERSION
        and all(type(text) is str and text for text in texts)
        and all(text is None or (type(text) is str and text) for text in optional)
        and re.fullmatch(JOB_ID_PATTERN, ticket.job_id) is not None
        and type(ticket.tls) is bool
        and _within(ticket.port, 1, 65_535)
        and _within(ticket.kid, 0, MAX_KID)
        and _within(ticket.attempt, 0, MAX_SEQ)
        and _within(ticket.next_seq, 1, MAX_SEQ)
        and (ticket.kid == 0) == (ticket.token is None)
        and (ticket.registry_id is None) == (ticket.job_instance is None)
        and all(
            name is None or (type(name) is str and re.fullmatch("[0-9a-f]{32}", name))
            for name in (ticket.registry_id, ticket.job_instance)
        )
    )
    return ticket if sound else None


def _within(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
