"""The verbs of :class:`Registry` for jobs: register, read, list, wait for, cancel and prune them.

Called by applications and by every command about jobs, as methods of an open registry; they check their arguments and
call the engine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .. import model
from ..core import arguments
from ..errors import InvalidInput, TimedOut, UnknownJob
from ..system.descriptor_shortage import translate_shortage
from .base import RegistryBase
from .waiting import WaitForChange, paged, waits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..model import AuthMode, Broker, Job, JobFilter, JobStatus, NewJob, Page, StatusName
    from .waiting import Waiting

_MAX_WAIT_SEC = 60.0


class JobVerbs(RegistryBase):
    """The verbs for jobs."""

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
        idle_timeout_sec: int = 0,
        max_attempts: int | None = None,
        expected_artifacts: tuple[str, ...] | list[str] = (),
        extra: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        auth: AuthMode = "required",
        auth_token: str | None = None,
    ) -> Job:
        """Register a new job, which is pending and has a token for its events.

        Args:
            agent: the agent that should do it: "claude-code", "codex", "human", …
            prompt: the task, up to 4 MiB of text.
            job_id: its id; generated if None.
            agent_session: the agent's session that it is meant for, such as "tmux:work".
            priority: jobs of higher priority are claimed first.
            topic_prefix: its events go to the MQTT topic ``<topic_prefix>/events``; ``jobdb/jobs/<job_id>`` if None.
            broker: where its events are delivered; without one they stay in the database.
            broker_password: the password for the broker; stored sealed.
            timeout_sec: the running time in seconds after which ``reap`` ends the job; 0 means never.
            idle_timeout_sec: the time without a sign of life in seconds after which the job ends; 0 means never. A live
                lease and an open question (permission_required) protect it: then silence does not end it.
            max_attempts: how many tries it has: an expired lease or a failure uses one up, and at the last one the job
                ends as error. If None, it has three as to expired leases, and its first failure is final.
            expected_artifacts: relative paths of the files that it should create.
            extra: further fields, stored as they are.
            idempotency_key: registering again with the same key returns the same job.
            auth: "required", or "never" for a job whose events are not signed, which a secured environment refuses.
            auth_token: the token to use; generated if None, which is safer.

        Returns:
            The job.

        Raises:
            InvalidInput: an argument is invalid; or ``auth_token`` was or may have been the token of a pruned job with
                this id; or unsigned events could not be distinguished from those of a pruned job with this id.
            AlreadyExists: the id is taken, or the idempotency key was used for another job.

        Example:
            >>> registry.register(agent="codex", prompt="sort ten problems", job_id="sort-1", priority=5)
            Job(job_id='sort-1', status='pending', agent='codex', attempt=0, last_seq=0, prompt='sort ten problems')
            >>> registry.register(agent="codex", prompt="…", idempotency_key="monday") == registry.register(
            ...     agent="codex", prompt="…", idempotency_key="monday"
            ... )
            True
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
            max_attempts=max_attempts,
            expected_artifacts=expected_artifacts,
            extra={} if extra is None else extra,
            idempotency_key=idempotency_key,
            auth=auth,
            auth_token=auth_token,
        )
        return self.register_many([new])[0]

    @translate_shortage
    def register_many(self, jobs: Iterable[NewJob]) -> list[Job]:
        """Register several jobs in one transaction: all or none.

        Args:
            jobs: the jobs, each with the arguments of :meth:`register`.

        Returns:
            The jobs in the order given.

        Raises:
            InvalidInput: as for :meth:`register`.
            AlreadyExists: as for :meth:`register`.

        Example:
            >>> jobs = registry.register_many(
            ...     [NewJob(agent="codex", prompt=f"sort part {part}", job_id=f"part-{part}") for part in (1, 2)]
            ... )
            >>> [job.job_id for job in jobs]
            ['part-1', 'part-2']
        """
        from ..core.registration import new_job

        checked = []
        for job in arguments.items("jobs", jobs, of="NewJob"):
            new = new_job(job)
            if new.auth == "never":
                _refuse_where_auth_is_required(new.broker)
            checked.append(new)
        return self.engine.register(checked) if checked else []

    def get(self, job_id: str) -> Job:
        """Return one job.

        Args:
            job_id: its id.

        Raises:
            UnknownJob: there is no job with that id.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> registry.get("sort-1").status
            <JobStatus.PENDING: 'pending'>
        """
        return self.engine.get(arguments.job_id(job_id))

    @translate_shortage
    def jobs(
        self,
        *,
        status: JobStatus | StatusName | Iterable[JobStatus | StatusName] = (),
        agent: str | None = None,
        agent_session: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Job, str]:
        """Return one page of jobs, newest first. :meth:`all_jobs` iterates over all pages.

        Args:
            status: only jobs with this status, or with one of these; any if empty.
            agent: only jobs for this agent.
            agent_session: only jobs for this session.
            after: the ``next_after`` of the previous page: the id of its last job.
            limit: the length of the page, 1 to 10,000.

        Returns:
            The page; see its ``has_more`` and ``next_after`` for the next one.

        Raises:
            InvalidInput: a status is unknown, or ``limit`` is out of range.
            UnknownJob: there is no job ``after``.

        Example:
            >>> for number in range(3):
            ...     job = registry.register(agent="codex", prompt="sort", job_id=f"sort-{number}")
            >>> page = registry.jobs(status="pending", agent="codex", limit=2)
            >>> [job.job_id for job in page], page.has_more, page.next_after
            (['sort-2', 'sort-1'], True, 'sort-1')
        """
        wanted = _job_filter(status, agent, agent_session)
        after = arguments.optional_job_id(after)
        return self._page_of_jobs(wanted, after, arguments.page_limit(limit))

    @paged
    def all_jobs(
        self,
        *,
        status: JobStatus | StatusName | Iterable[JobStatus | StatusName] = (),
        agent: str | None = None,
        agent_session: str | None = None,
        after: str | None = None,
        page_size: int = 100,
    ) -> Iterator[Page[Job, str]]:
        """Iterate over all jobs, newest first, reading one page at a time to bound memory.

        Jobs may be pruned during the iteration.

        Args:
            status: only jobs with this status, or with one of these; any if empty.
            agent: only jobs for this agent.
            agent_session: only jobs for this session.
            after: begin after the job with this id.
            page_size: how many jobs to read at once, 1 to 10,000.

        Raises:
            InvalidInput: a status is unknown, or ``page_size`` is out of range.
            UnknownJob: there is no job ``after``, or all jobs of the last page were pruned meanwhile.

        Example:
            >>> for number in range(3):
            ...     job = registry.register(agent="codex", prompt="sort", job_id=f"sort-{number}")
            >>> [job.job_id for job in registry.all_jobs(page_size=2)]
            ['sort-2', 'sort-1', 'sort-0']
        """
        wanted = _job_filter(status, agent, agent_session)
        limit = arguments.page_limit(page_size, name="page_size")
        page = self._page_of_jobs(wanted, arguments.optional_job_id(after), limit)
        yield page
        while page.has_more:
            page = self._following_page(page, wanted, limit)
            yield page

    def _page_of_jobs(self, wanted: JobFilter, after: str | None, limit: int) -> Page[Job, str]:
        found = self.engine.list_jobs(wanted, after=after, limit=limit + 1)
        return model.cut_page(found, limit, cursor=_job_id_of)

    def _following_page(self, page: Page[Job, str], wanted: JobFilter, limit: int) -> Page[Job, str]:
        """Return the page after ``page``, whose last jobs may have been pruned since."""
        shown = {job.job_id for job in page}
        for job in reversed(page):
            try:
                following = self._page_of_jobs(wanted, job.job_id, limit)
            except UnknownJob:
                continue
            following[:] = [job for job in following if job.job_id not in shown]
            return following
        raise UnknownJob(page[-1].job_id)

    @translate_shortage
    def count_by_status(self) -> dict[JobStatus, int]:
        """Return the number of jobs per status.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort")
            >>> registry.count_by_status()[JobStatus.PENDING]
            1
        """
        return self.engine.count_by_status()

    @waits
    def wait(self, job_id: str, *, timeout_sec: float | None = None) -> Waiting[Job]:
        """Wait until a job has ended, and return it.

        Args:
            job_id: the id of the job.
            timeout_sec: the maximum time to wait, in seconds; no limit if None.

        Raises:
            UnknownJob: there is no job with that id.
            TimedOut: the job had not ended after ``timeout_sec`` seconds.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> event = registry.complete("sort-1", detail="all sorted")
            >>> registry.wait("sort-1", timeout_sec=10).status
            <JobStatus.COMPLETED: 'completed'>
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
            left = _MAX_WAIT_SEC if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    f"job {job_id} is still {job.status} after {timeout_sec} s",
                    advice="wait again, or cancel it",
                    command=f"wait again, or cancel it with 'jobdb cancel {job_id}'",
                )
            yield WaitForChange(seen, min(left, _MAX_WAIT_SEC))

    @translate_shortage
    def cancel(self, job_id: str, *, reason: str = "cancelled") -> Job:
        """End a pending or running job as cancelled. Cancelling a cancelled job changes nothing.

        Args:
            job_id: the id of the job.
            reason: a sentence for people, up to 1,000 characters; it becomes the ``detail`` of the job.

        Returns:
            The job.

        Raises:
            UnknownJob: there is no job with that id.
            IllegalTransition: the job has completed or failed.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> registry.cancel("sort-1", reason="no longer needed").detail
            'no longer needed'
        """
        reason = arguments.text("reason", reason, most=1000, least=0)
        return self.engine.cancel(arguments.job_id(job_id), reason=reason)

    @translate_shortage
    def prune(self, *, older_than_sec: float, limit: int = 500, now_ms: int | None = None) -> list[str]:
        """Delete jobs that ended long ago, with all their events. Call it until it returns no ids.

        Jobs with events that still wait for the broker are kept.

        Args:
            older_than_sec: the minimum time since a job ended, in seconds.
            limit: the maximum number of jobs to delete in this transaction, 1 to 10,000.
            now_ms: the Unix time in milliseconds to count from; the current time if None.

        Returns:
            The ids of the deleted jobs.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> event = registry.complete("sort-1")
            >>> registry.prune(older_than_sec=30 * 86_400)
            []
        """
        older_than_sec = arguments.seconds("older_than_sec", older_than_sec)
        limit = arguments.page_limit(limit)
        if now_ms is not None:
            now_ms = arguments.integer("now_ms", now_ms, least=0, most=2**53)
        now = self.store.clock() if now_ms is None else now_ms
        return self.engine.prune(finished_before_ms=now - round(older_than_sec * 1000), limit=limit)


def _job_filter(status: object, agent: object, agent_session: object) -> JobFilter:
    return model.JobFilter(
        statuses=arguments.statuses(status),
        agent=arguments.optional_text("agent", agent, most=128),
        agent_session=arguments.optional_text("agent_session", agent_session, most=256),
    )


def _job_id_of(job: Job) -> str:
    return job.job_id


def _refuse_where_auth_is_required(broker: Broker | None) -> None:
    """Refuse a job without signed events in an environment that requires them."""
    from ..crypto.secret_input import auth_required_reason

    if reason := auth_required_reason(broker):
        raise InvalidInput(f"auth='never' is refused because {reason}", advice="leave it out and a token is generated")
