"""The wire event as an object, as returned by ``parse`` and ``build``.

Used by the signature and the wire form, and by everything that handles events; calls neither. The bottom module of the
protocol: imports only ``model``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ...model import EventKind


class WireEvent(NamedTuple):
    """An event on the wire, checked against the schema but not yet against any job.

    Attributes:
        seq: its number within the job, from 1.
        job_id: the job that it is about.
        event: its kind.
        timestamp: the time that its author gives; not used in any decision.
        detail: one line for people, possibly empty.
        data: the payload's ``data`` unchanged, with ``attempt``, ``hmac_kid`` and ``hmac_sig``.
        attempt: the attempt under which it was signed; None if not given.
        kid: the version of the token that it is signed with; 1 if not given.
        signature: ``data.hmac_sig`` unchanged; None if there is none.
        payload: the whole parsed object.
        message: the signed bytes: the canonical form without ``data.hmac_sig``.
        text: the wire form on one line: as received, with line breaks between JSON tokens replaced by spaces.
        digest: SHA-256 of ``message``: two events are the same event if their digests are equal.
    """

    seq: int
    job_id: str
    event: EventKind
    timestamp: str
    detail: str
    data: dict[str, Any]
    attempt: int | None
    kid: int
    signature: str | None
    payload: dict[str, Any]
    message: bytes
    text: str
    digest: bytes

    def __repr__(self) -> str:
        return f"WireEvent(seq={self.seq}, job_id={self.job_id!r}, event={self.event.value!r})"
