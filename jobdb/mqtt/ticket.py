"""Tickets: files with everything that a worker on another machine needs to publish signed events about a job.

A ticket is a secret: it contains the job's token and the broker's password in clear text, because the other machine has
neither this database nor its master key. It is written with mode 0600, and reading it is refused if others may read it.
It is bound to one attempt: once the job is claimed again, events that the old ticket's holder still sends are refused
by accept.

Called by ``jobdb ticket``, which writes one, and ``publish --ticket`` and ``relay --ticket``, which read it; see
``ticket_issue`` for how one is issued.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.protocol import JOB_ID_PATTERN, MAX_KID, MAX_SEQ
from ..errors import InvalidInput, StorageFailed
from ..filesystem.folder_sync import sync_folder
from ..model import Broker
from .settings import BrokerSettings, Environment

VERSION = 1
_MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket: the right to publish one job's events under one attempt.

    Attributes:
        job_id: the job.
        topic: the topic of its events.
        host, port, tls, username: the broker.
        password: the broker's password, never shown in the repr.
        token: the token that signs the events, never shown in the repr; None for a job without a token.
        kid: the token's version; 0 without a token.
        attempt: the attempt that the events belong to; 0 before the first claim.
        next_seq: the number of the next event when the ticket was issued.
        registry_id: the registry that issued it; None in a ticket of an older version.
        job_instance: distinguishes the job from others that have or had its id there, 32 hex digits; None likewise.
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
        """Return the broker's settings, completed by this machine's environment (certificates)."""
        record = Broker(self.host, self.port, self.tls, self.username, self.password is not None)
        return environment.settings(record, self.password)

    def as_json(self) -> str:
        """Return the content of the file, with the secrets in clear text."""
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


def write_ticket(ticket: Ticket, path: Path) -> None:
    """Write a ticket to a new file with mode 0600, durably.

    Raises:
        InvalidInput: a file of that name exists.
        StorageFailed: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InvalidInput(
            f"{path} exists already",
            advice="remove it, or pass another path",
            command="remove it, or name another file with --output",
        ) from None
    except OSError as error:
        raise StorageFailed(
            f"cannot write the ticket {path}: {error.strerror}",
            advice="pass another path",
            command="name another path with --output",
        ) from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(ticket.as_json())
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.absolute().parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageFailed(
            f"cannot write the ticket {path}: {error.strerror}", advice="check the disk's free space"
        ) from error


def read_ticket(path: Path) -> Ticket:
    """Read a ticket from its file.

    Raises:
        InvalidInput: it cannot be read, others may read it, or it is not a ticket. The message does not quote it.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read the ticket {path}: {error.strerror}") from error
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput(
            f"the ticket {path} has mode {stat.S_IMODE(mode):04o}: others can use the secrets in it",
            advice=f"chmod 600 {path}",
        )
    ticket = _parse_ticket(content)
    if ticket is None:
        raise InvalidInput(
            f"{path} is not a ticket of this version of jobdb", advice="issue one with 'jobdb ticket JOB'"
        )
    return ticket


def _parse_ticket(content: bytes) -> Ticket | None:
    """Return the ticket, or None if it is invalid, so that no error contains the file's content."""
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
