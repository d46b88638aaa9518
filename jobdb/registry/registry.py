"""The registry: the public face of the library. Checks arguments, then asks the engine; one transaction a verb.

``with Registry.open("sqlite:///.jobdb/jobs.db", create=True) as registry: …``
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from .. import model
from ..core import arguments
from ..crypto.secret_input import auth_required_reason
from ..crypto.vault import Vault
from ..errors import InvalidInput, TimedOut, UnknownJob
from ..model import JobStatus, Verdict
from ..system.descriptor_shortage import translate_shortage
from ..urls import DatabaseUrl, default_url, parse_url, require_current_folder
from .tokens import Tokens

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from ..engines.sql.engine import Engine
    from ..model import Acceptance, Arrival, Broker, Claim, Event, Job, NewEvent, NewJob, Reaped, Refusal, Subscription
    from .follower import Follower

DEFAULT_BUSY_SEC = 30.0
DEFAULT_LEASE_SEC = 300.0
DEFAULT_STRIKE_LIMIT = 3


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@translate_shortage
class Registry:
    """The job registry. Open it with :meth:`open`; share it between threads, not across a fork.

    A forked child may not open a SQLite database that its parent had open (it raises ForkedRegistry): open it after
    the fork in each process, or start processes with spawn or forkserver. PostgreSQL: open another one in the child.

    Attributes:
        engine: the domain verbs behind it, for tools that need what is not here.
        store: the open database under the engine, for tools that run statements of their own.
        url: where it is.
        tokens: the jobs' tokens: show, list, rotate, revoke, rekey.
    """

    def __init__(self, engine: Engine, url: DatabaseUrl) -> None:
        self.engine = engine
        self.store = engine.store
        self.url = url
        self.tokens = Tokens(engine)

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str] | None = None,
        *,
        create: bool = False,
        durability: str = "full",
        busy_timeout_sec: float = DEFAULT_BUSY_SEC,
        vault: Vault | None = None,
        clock: Callable[[], int] = now_ms,
        checkpoint_pages: int = 1000,
    ) -> Registry:
        """Opens a registry.

        Args:
            url: ``sqlite:///FILE``, ``postgresql://…`` or a file name; ``$JOBDB_URL`` or the default when None.
            create: make the database when there is none.
            durability: "full": what was answered survives a power failure; "normal": it survives the death of the
                process, and a power failure may take back the last commits.
            busy_timeout_sec: how long a writer waits its turn, in seconds.
            vault: seals the tokens; by default with the master key of this user or service.
            clock: Unix time in milliseconds, for tests. PostgreSQL uses the server's.
            checkpoint_pages: SQLite: the WAL's length in pages from which it is copied into the database.

        Raises:
            InvalidInput: an argument is not what it should be.
            DatabaseMissing: there is no database and ``create`` is not set.
            NotAJobdbDatabase: the file is something else.
            SchemaMismatch: the schema is older or newer; the message names the command that mends it.
            UntrustedDatabase: no URL was given, and the current folder's database is not known to be this user's.
            UnsafeFileSystem: the folder's file system cannot hold the database safely.
            StorageFailed, Unavailable: the disk, its rights or the server.
        """
        if not isinstance(durability, str) or durability not in ("full", "normal"):
            raise InvalidInput(f"durability is {arguments.shown(durability, 40)}; it is 'full' or 'normal'")
        busy_sec = arguments.seconds_as_ms("busy_timeout_sec", busy_timeout_sec) / 1000
        place = parse_url(default_url() if url is None else url)
        require_current_folder(place)
        arguments.flag("create", create)
        if vault is not None and not isinstance(vault, Vault):
            raise InvalidInput(f"vault must be a Vault, not {type(vault).__name__}")
        if url is None:
            _require_trust()
        from ..engines.open import open_engine

        engine = open_engine(
            place,
            create=create,
            durability=durability,
            busy_sec=busy_sec,
            vault=vault or Vault.open(),
            clock=clock,
            checkpoint_pages=arguments.integer("checkpoint_pages", checkpoint_pages, least=1, most=10**6),
        )
        return cls(engine, place)

    def close(self, *, checkpoint: bool = True) -> None:
        """Closes the database. With ``checkpoint`` the last process out leaves one file."""
        self.engine.close(checkpoint=checkpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Registry {self.url}>"

    # -- a job's record

    def register(
        self,
        *,
        agent: str,
        prompt: str,
        job_id: str | None = None,
        agent_session: str | None = None,
        priority: int = 0,
        topic_prefix: str | None = None,
        broker: Broker | None = None,
        broker_password: str | None = None,
        timeout_sec: int = 3600,
        idle_timeout_sec: int = 120,
        expected_artifacts: Iterable[str] = (),
        extra: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        auth: str = "required",
        auth_token: str | None = None,
    ) -> Job:
        """Records a new job, pending, with its token.

        Args:
            agent: who is to do it: "claude-code", "codex", "human", …
            prompt: what is to be done; up to 4 MiB of text.
            job_id: its id; one is made when None.
            agent_session: a session of the agent that it is meant for, such as "tmux:work".
            priority: higher is claimed first.
            topic_prefix: events go to the MQTT topic ``<topic_prefix>/events``; ``jobdb/jobs/<job_id>`` when None.
            broker: where events are delivered; without one they stay in the database.
            broker_password: stored sealed.
            timeout_sec: ``reap`` ends it when it has run for so many seconds; 0 means never.
            idle_timeout_sec: and when it has said nothing for so many; 0 means never.
            expected_artifacts: relative paths of the files that it should make.
            extra: further fields, kept as they are.
            idempotency_key: registering again with the same key answers with the same job.
            auth: "required", or "never" for a job whose events are not signed (refused where the environment is
                secured).
            auth_token: the token to use; one is generated when None. Prefer that.

        Raises:
            InvalidInput: an argument is not what it should be; or a pruned job of this id had the token, or may have
                had it, or the new one is not to be signed and could not be told from it.
            AlreadyExists: the id is taken, or the key was used for something else.
        """
        new = model.NewJob(
            agent=agent,
            prompt=prompt,
            job_id=job_id,
            agent_session=agent_session,
            priority=priority,
            topic_prefix=topic_prefix,
            broker=broker,
            broker_password=broker_password,
            timeout_sec=timeout_sec,
            idle_timeout_sec=idle_timeout_sec,
            expected_artifacts=arguments.artifacts(expected_artifacts),
            extra={} if extra is None else extra,
            idempotency_key=idempotency_key,
            auth=auth,
            auth_token=auth_token,
        )
        return self.register_many([new])[0]

    def register_many(self, jobs: Iterable[NewJob]) -> list[Job]:
        """Records many jobs in one transaction: all or none. Arguments and errors as for :meth:`register`."""
        checked = []
        for job in arguments.items("jobs", jobs, of="NewJob"):
            new = arguments.new_job(job)
            if new.auth == "never" and (reason := auth_required_reason(new.broker)):
                raise InvalidInput(f"auth='never' is refused because {reason}; leave it out and a token is made")
            checked.append(new)
        return self.engine.register(checked) if checked else []

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            UnknownJob: there is none of that id.
        """
        return self.engine.get(arguments.job_id(job_id))

    def jobs(
        self,
        *,
        status: JobStatus | str | Iterable[JobStatus | str] = (),
        agent: str | None = None,
        agent_session: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """A page of jobs, newest first.

        Args:
            status: only these statuses; any when empty.
            agent: only this agent's.
            agent_session: only this session's.
            after: the id of the last job of the page before.
            limit: the length of the page, 1 to 10,000.

        Raises:
            InvalidInput: no such status, or a limit out of range.
            UnknownJob: ``after`` names no job.
        """
        wanted = model.JobFilter(
            statuses=arguments.statuses(status),
            agent=arguments.optional_text("agent", agent, most=128),
            agent_session=arguments.optional_text("agent_session", agent_session, most=256),
        )
        after = None if after is None else arguments.job_id(after)
        limit = arguments.integer("limit", limit, least=1, most=arguments.MAX_PAGE)
        return self.engine.list_jobs(wanted, after=after, limit=limit)

    def all_jobs(self, **wanted: Any) -> Iterator[Job]:
        """Every job that :meth:`jobs` would show on its pages, newest first, in bounded memory."""
        page = self.jobs(**wanted)
        wanted.pop("after", None)
        while page:
            yield from page
            page = self._next_page(page, wanted)

    def _next_page(self, page: list[Job], wanted: Mapping[str, Any]) -> list[Job]:
        """What follows a page, although its last jobs may have been pruned since."""
        shown = {job.job_id for job in page}
        for job in reversed(page):
            try:
                following = self.jobs(**{**wanted, "after": job.job_id})
            except UnknownJob:
                continue
            return [job for job in following if job.job_id not in shown]
        raise UnknownJob(page[-1].job_id)

    def count_by_status(self) -> dict[JobStatus, int]:
        """How many jobs there are of each status."""
        return self.engine.count_by_status()

    def cancel(self, job_id: str, *, reason: str = "cancelled") -> Job:
        """Ends a pending or running job. Cancelling a cancelled job changes nothing.

        Raises:
            UnknownJob: there is none of that id.
            IllegalTransition: it has ended otherwise.
        """
        reason = arguments.text("reason", reason, most=1000, least=0)
        return self.engine.cancel(arguments.job_id(job_id), reason=reason)

    def prune(self, *, older_than_sec: float, limit: int = 500, now_ms: int | None = None) -> list[str]:
        """Deletes up to ``limit`` jobs that ended longer ago than ``older_than_sec`` seconds, with all their events.

        Jobs with events that still wait for the broker stay. Returns the ids of the deleted jobs; call it until it
        returns none.
        """
        older_than_sec = arguments.seconds("older_than_sec", older_than_sec)
        limit = arguments.integer("limit", limit, least=1, most=arguments.MAX_PAGE)
        if now_ms is not None:
            now_ms = arguments.integer("now_ms", now_ms, least=0, most=2**53)
        now = self.store.clock() if now_ms is None else now_ms
        return self.engine.prune(finished_before_ms=now - round(older_than_sec * 1000), limit=limit)

    # -- who works on it

    def claim(
        self,
        *,
        worker: str,
        agent: str | None = None,
        agent_session: str | None = None,
        job_id: str | None = None,
        lease_sec: float | None = DEFAULT_LEASE_SEC,
        wait_sec: float = 0,
    ) -> Claim | None:
        """Takes the next pending job: highest priority first, then the oldest.

        Args:
            worker: who takes it, such as "host1:4711".
            agent: only this agent's jobs.
            agent_session: only this session's jobs.
            job_id: only this job.
            lease_sec: the claim runs out after so many seconds unless renewed; None: never.
            wait_sec: how long to wait for work when there is none, in seconds.

        Returns:
            The claim, whose ``attempt`` the worker gives with everything that it does; None when nothing is pending.

        Raises:
            UnknownJob: ``job_id`` names no job.
            IllegalTransition: the job that it names is not pending.
        """
        lease_ms = None if lease_sec is None else arguments.seconds_as_ms("lease_sec", lease_sec)
        worker = arguments.text("worker", worker, most=256)
        agent = arguments.optional_text("agent", agent, most=128)
        agent_session = arguments.optional_text("agent_session", agent_session, most=256)
        if job_id is not None:
            job_id = arguments.job_id(job_id)
        wait_sec = arguments.seconds("wait_sec", wait_sec)
        deadline = time.monotonic() + wait_sec
        while True:
            seen = self.store.data_version() if wait_sec > 0 else 0
            claim = self.engine.claim(
                worker=worker, lease_ms=lease_ms, job_id=job_id, agent=agent, agent_session=agent_session
            )
            left = deadline - time.monotonic()
            if claim is not None or left <= 0:
                return claim
            self.store.wait_for_change(seen, left)

    def renew(self, job_id: str, *, attempt: int, lease_sec: float = DEFAULT_LEASE_SEC) -> Claim:
        """Gives a claim's lease a new end, ``lease_sec`` seconds from now.

        Raises:
            UnknownJob: there is none of that id.
            StaleAttempt: the claim was taken over, given back, or its job has ended.
        """
        lease_ms = arguments.seconds_as_ms("lease_sec", lease_sec)
        return self.engine.renew(arguments.job_id(job_id), attempt=_attempt(attempt), lease_ms=lease_ms)

    def release(self, job_id: str, *, attempt: int) -> Job:
        """Gives a claimed job back: it is pending again.

        Raises:
            UnknownJob: there is none of that id.
            StaleAttempt: the claim was taken over, given back, or its job has ended.
        """
        return self.engine.release(arguments.job_id(job_id), attempt=_attempt(attempt))

    def reap(self, *, strike_limit: int = DEFAULT_STRIKE_LIMIT, limit: int = 500) -> list[Reaped]:
        """Brings back what dead workers left: to be called from time to time, by anybody.

        Jobs whose lease ran out become pending again, or end as error at the ``strike_limit``-th time; jobs past
        their ``timeout_sec`` or ``idle_timeout_sec`` end as error. At most ``limit`` of each in one transaction.
        A job for which no event can be signed, its token being revoked, ends without one, as a cancelled job does.
        """
        return self.engine.reap(
            strike_limit=arguments.integer("strike_limit", strike_limit, least=1, most=10**6),
            limit=arguments.integer("limit", limit, least=1, most=arguments.MAX_PAGE),
        )

    # -- what it says

    def publish(
        self,
        job_id: str,
        event: EventName,
        *,
        detail: str = "",
        data: Mapping[str, Any] | None = None,
        attempt: int | None = None,
    ) -> Event:
        """Records what an agent says about its job: numbered, signed, and in the outbox if the job has a broker.

        Args:
            job_id: the job.
            event: "started", "progress", "permission_required", "completed" or "error".
            detail: a sentence for people.
            data: further facts, as JSON can hold them.
            attempt: the claim that it belongs to; the present one when None, so that nothing fences this call.

        Returns:
            The event; its ``payload`` is what travels.

        Raises:
            InvalidInput: an argument is not what it should be.
            UnknownJob: there is none of that id.
            IllegalTransition: the job has ended.
            StaleAttempt: the claim was taken over or given back.
        """
        checked = _checked_event(job_id, event, detail, {} if data is None else data, attempt)
        return self.engine.publish([checked])[0]

    def publish_many(self, events: Iterable[NewEvent]) -> list[Event]:
        """Records many events in one transaction: all or none. Arguments and errors as for :meth:`publish`."""
        checked = []
        for event in arguments.items("events", events, of="NewEvent"):
            if not isinstance(event, model.NewEvent):
                raise InvalidInput(f"an event to publish must be a NewEvent, not {type(event).__name__}")
            checked.append(_checked_event(event.job_id, event.event, event.detail, event.data, event.attempt))
        return self.engine.publish(checked) if checked else []

    def complete(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        detail: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> Event:
        """Ends a job well: publishes ``completed``. Arguments and errors as for :meth:`publish`."""
        return self.publish(job_id, "completed", detail=detail, data=data, attempt=attempt)

    def fail(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        detail: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> Event:
        """Ends a job as failed: publishes ``error``. Arguments and errors as for :meth:`publish`."""
        return self.publish(job_id, "error", detail=detail, data=data, attempt=attempt)

    def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """A page of a job's events in order, from the seq that follows ``after``.

        Raises:
            UnknownJob: there is none of that id.
        """
        after = arguments.integer("after", after, least=0, most=2**53)
        limit = arguments.integer("limit", limit, least=1, most=arguments.MAX_PAGE)
        return self.engine.events(arguments.job_id(job_id), after=after, limit=limit)

    # -- who observes it

    def accept(
        self,
        payload: bytes | str | Mapping[str, Any],
        *,
        subscriber: str,
        topic: str | None = None,
        window: int = 0,
        start: str = "beginning",
    ) -> Acceptance:
        """Verifies one wire event, checks it for replay, records it and applies it to its job.

        Never raises for what a payload holds: the verdict says it.

        Args:
            payload: as it came in.
            subscriber: the observer whose ``last_seq`` it is checked against.
            topic: the MQTT topic that it came on, to be compared with the job's.
            window: an event that is at most so many seqs behind and was skipped is accepted late, once (RFC 6479);
                0: strictly monotonic.
            start: where a subscriber that is new to the job begins: "beginning", or "now": after what is recorded when
                its first authentic event comes in. Where events are recorded here before they travel, that first one
                is old by then: subscribe with ``start="now"`` before it to begin earlier.

        Returns:
            The verdict with the event and the seqs that were skipped over. It is durable, whatever it is.
        """
        return self.accept_many([model.Arrival(payload, topic)], subscriber=subscriber, window=window, start=start)[0]

    def accept_many(
        self,
        arrivals: Iterable[Arrival | bytes | str | Mapping[str, Any]],
        *,
        subscriber: str,
        window: int = 0,
        start: str = "beginning",
    ) -> list[Acceptance]:
        """Accepts a batch in one transaction, a verdict each. Arguments as for :meth:`accept`."""
        given = arguments.items("arrivals", arrivals, of="payloads")
        batch = [item if isinstance(item, model.Arrival) else model.Arrival(item) for item in given]
        subscriber = arguments.text("subscriber", subscriber, most=256)
        window = arguments.integer("window", window, least=0, most=1_000_000)
        start = arguments.start(start)
        if not batch:
            return []
        return self.engine.accept(batch, subscriber=subscriber, window=window, start=start)

    def subscribe(
        self,
        job_id: str | None = None,
        *,
        subscriber: str,
        start: str = "beginning",
        timeout_sec: float | None = None,
        idle_timeout_sec: float | None = None,
    ) -> Follower:
        """Iterates over events from the database, each accepted once and handled at least once.

        An event counts as handled when the iteration asks for the next one. After a restart what was accepted and
        not handled comes first. Following one job ends by itself when the job has ended and all is handled; its
        ``outcome`` is then the job.

        Args:
            job_id: the job; all jobs when None (then it ends by timeouts or by the caller only).
            subscriber: the observer's name; its numbers are kept under it.
            start: where a subscriber that is new begins: "beginning" or "now".
            timeout_sec: the most that the whole may take, in seconds.
            idle_timeout_sec: the most between two events, in seconds, counted from receipt.

        Raises:
            UnknownJob: there is none of that id.
            TimedOut: while iterating, when a limit is over.
        """
        from .follower import follow_all, follow_job

        subscriber = arguments.text("subscriber", subscriber, most=256)
        start = arguments.start(start)
        timeout_sec = arguments.limit_sec("timeout_sec", timeout_sec)
        idle_timeout_sec = arguments.limit_sec("idle_timeout_sec", idle_timeout_sec)
        if job_id is None:
            return follow_all(self.engine, subscriber, start, timeout_sec, idle_timeout_sec)
        return follow_job(self.engine, arguments.job_id(job_id), subscriber, start, timeout_sec, idle_timeout_sec)

    def subscriptions(
        self, *, job_id: str | None = None, subscriber: str | None = None, limit: int = 1000
    ) -> list[Subscription]:
        """Subscribers' numbers: ``last_seq`` accepted, ``handled_seq`` done with."""
        limit = arguments.integer("limit", limit, least=1, most=arguments.MAX_PAGE)
        job_id = None if job_id is None else arguments.job_id(job_id)
        subscriber = arguments.optional_text("subscriber", subscriber, most=256)
        return self.engine.subscriptions(job_id=job_id, subscriber=subscriber, limit=limit)

    def refusals(self, *, job_id: str | None = None, limit: int = 100) -> list[Refusal]:
        """Authentic events that were refused, newest first; the last 64 of each job and 10,000 in all are kept."""
        limit = arguments.integer("limit", limit, least=1, most=arguments.MAX_PAGE)
        job_id = None if job_id is None else arguments.job_id(job_id)
        return self.engine.refusals(job_id=job_id, below=2**62, limit=limit)

    def verdict_counts(self, job_id: str | None = None) -> dict[Verdict, int]:
        """How often each refusal was given, for one job or in all."""
        return self.engine.verdict_counts(None if job_id is None else arguments.job_id(job_id))

    def wait(self, job_id: str, *, timeout_sec: float | None = None) -> Job:
        """Waits until a job has ended and returns it.

        Raises:
            UnknownJob: there is none of that id.
            TimedOut: it was still going after ``timeout_sec`` seconds.
        """
        job_id = arguments.job_id(job_id)
        timeout_sec = arguments.limit_sec("timeout_sec", timeout_sec)
        deadline = None if timeout_sec is None else time.monotonic() + timeout_sec
        store = self.store
        while True:
            seen = store.data_version()
            job = self.engine.get(job_id)
            if job.terminal:
                store.sync()
                return job
            left = 60.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"job {job_id} is still {job.status} after {timeout_sec} s; wait on, or cancel it")
            store.wait_for_change(seen, min(left, 60.0))


EventName = str
"""The name of an event: see :class:`jobdb.EventKind`."""


def _attempt(value: object) -> int:
    return arguments.integer("attempt", value, least=0, most=2**53 - 1)


def _checked_event(job_id: object, event: object, detail: object, data: object, attempt: object) -> NewEvent:
    if type(data) is not dict and not isinstance(data, Mapping):
        raise InvalidInput(f"data must be an object (a mapping), not {type(data).__name__}")
    return model.NewEvent(
        job_id=arguments.job_id(job_id),
        event=arguments.event_kind(event),
        detail=arguments.text("detail", detail, most=65_536, least=0),
        data=data,
        attempt=None if attempt is None else _attempt(attempt),
    )


def _require_trust() -> None:
    from ..engines.trust import default_database_path, require_trust

    found = default_database_path()
    if found is not None:
        require_trust(found)
