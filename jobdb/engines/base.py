"""The interface between the registry and what runs the transactions: one verb, one sentence, one transaction.

A verb that writes is durable when it returns. Arguments are checked already; times and durations are milliseconds.
Verbs raise the errors of :mod:`jobdb.errors` and nothing of a driver's. One suite runs every verb on every engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..crypto.vault import Vault
    from ..model import (
        Acceptance,
        Arrival,
        Broker,
        Claim,
        Delivery,
        Event,
        Job,
        JobFilter,
        JobStatus,
        NewEvent,
        NewJob,
        Reaped,
        Refusal,
        Subscription,
        TokenInfo,
        Verdict,
    )
    from .sql.precheck import PrecheckedArrival
    from .sql.subscriptions import FollowResult
    from .store import Store


class Engine(Protocol):
    """What the registry asks of a database."""

    store: Store
    vault: Vault

    # -- jobs

    def register(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Records new jobs with their tokens; a known idempotency key answers with the job that it made."""
        ...

    def get(self, job_id: str) -> Job:
        """Reads one job."""
        ...

    def list_jobs(self, job_filter: JobFilter, *, after: str | None, limit: int) -> list[Job]:
        """Reads a page of jobs, newest first."""
        ...

    def cancel(self, job_id: str, *, reason: str) -> Job:
        """Ends a job as cancelled."""
        ...

    def prune(self, *, finished_before_ms: int, limit: int) -> list[str]:
        """Deletes old terminal jobs that have nothing left to deliver."""
        ...

    def count_by_status(self) -> dict[JobStatus, int]:
        """Counts the jobs of each status."""
        ...

    def setting(self, name: str) -> str | None:
        """Reads a fact about this database."""
        ...

    def put_setting(self, name: str, value: str) -> None:
        """Notes a fact about this database."""
        ...

    # -- claims

    def claim(
        self,
        *,
        worker: str,
        lease_ms: int | None,
        job_id: str | None,
        agent: str | None,
        agent_session: str | None,
    ) -> Claim | None:
        """Gives the first pending job in the queue to a worker, under a new attempt."""
        ...

    def renew(self, job_id: str, *, attempt: int, lease_ms: int) -> Claim:
        """Gives a live claim's lease a new end."""
        ...

    def release(self, job_id: str, *, attempt: int) -> Job:
        """Gives a claimed job back to the queue."""
        ...

    def reap(self, *, strike_limit: int, limit: int) -> list[Reaped]:
        """Returns jobs whose lease ran out to the queue and ends jobs past their time limits."""
        ...

    def acquire_lease(self, name: str, *, holder: str, lease_ms: int) -> bool:
        """Takes or renews a named lease, for work that one process does at a time."""
        ...

    def release_lease(self, name: str, *, holder: str) -> None:
        """Gives a named lease back."""
        ...

    # -- events

    def publish(self, events: Sequence[NewEvent]) -> list[Event]:
        """Numbers, signs and records events, puts them into the outbox and moves their jobs."""
        ...

    def events(self, job_id: str, *, after: int, limit: int) -> list[Event]:
        """Reads a page of a job's events."""
        ...

    def outbox(self, *, after: int, limit: int, job_id: str | None = None) -> list[Delivery]:
        """Reads a page of the events that wait for the broker; they are durable."""
        ...

    def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Takes acknowledged events out of the outbox."""
        ...

    def outbox_size(self) -> tuple[int, int | None]:
        """Counts the events that wait, and says since when the oldest does."""
        ...

    def broker(self, job_id: str) -> tuple[Broker | None, str | None]:
        """Reads where a job's events go, with the password."""
        ...

    # -- accepting

    def accept(self, arrivals: Sequence[Arrival], *, subscriber: str, window: int, start: str) -> list[Acceptance]:
        """Gives each wire payload its verdict for a subscriber and acts on it."""
        ...

    def precheck(self, arrivals: Sequence[Arrival]) -> list[PrecheckedArrival]:
        """Parses wire payloads and verifies what is worth it, before the write lock is asked for."""
        ...

    def verify_prechecked(self, prechecked: Sequence[PrecheckedArrival]) -> list[PrecheckedArrival]:
        """Verifies the rest of them, before the write lock is asked for."""
        ...

    def accept_prechecked(
        self, prechecked: Sequence[PrecheckedArrival], *, subscriber: str, window: int, start: str
    ) -> list[Acceptance]:
        """Does the rest of accept."""
        ...

    def refusals(self, *, job_id: str | None, below: int, limit: int) -> list[Refusal]:
        """Reads recorded refusals, newest first."""
        ...

    def verdict_counts(self, job_id: str | None = None) -> dict[Verdict, int]:
        """Counts the refusals of each verdict."""
        ...

    # -- subscribers

    def follow(
        self, job_id: str, *, subscriber: str, start: str, limit: int, include_events: bool = True
    ) -> FollowResult:
        """Accepts a job's recorded events for a subscriber and gives what it has not handled."""
        ...

    def open_feed(self, subscriber: str, *, start: str) -> list[str]:
        """Begins or resumes following all jobs."""
        ...

    def poll_feed(self, subscriber: str, *, after: int | None, limit: int) -> tuple[list[str], int]:
        """Reads which jobs have news for a subscriber of all jobs."""
        ...

    def follow_in_feed(self, job_id: str, *, subscriber: str, limit: int, include_events: bool = True) -> FollowResult:
        """The same as follow, for a subscriber of all jobs."""
        ...

    def advance_feed(self, subscriber: str, *, event: int) -> None:
        """Notes how far a subscriber of all jobs has looked."""
        ...

    def mark_handled(self, job_id: str, *, subscriber: str, seq: int, after: int | None = None) -> None:
        """Notes that a subscriber's handler is done with everything up to a seq."""
        ...

    def subscriptions(self, *, job_id: str | None, subscriber: str | None, limit: int) -> list[Subscription]:
        """Reads subscribers' numbers."""
        ...

    # -- tokens

    def token(self, job_id: str, *, kid: int | None) -> tuple[int, str]:
        """Reads a job's token in clear."""
        ...

    def tokens(self, job_id: str) -> list[TokenInfo]:
        """Reads a job's tokens without the secrets."""
        ...

    def rotate_token(self, job_id: str, *, overlap_ms: int, token: str | None) -> int:
        """Gives a job a new token and the old ones an end."""
        ...

    def revoke_token(self, job_id: str, *, kid: int) -> bool:
        """Makes a token invalid at once."""
        ...

    def rekey(self, new: Vault) -> int:
        """Seals every secret anew under another master key."""
        ...

    def close(self, *, checkpoint: bool = True) -> None:
        """Closes the database."""
        ...
