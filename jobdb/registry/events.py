"""The verbs of :class:`Registry` for events: publish and read them.

Called by applications and by every command that publishes or reads events, as methods of an open registry; they check
their arguments and call the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import model
from ..core import arguments
from ..core.protocol import MAX_DETAIL_CHARS, MAX_SEQ
from ..errors import InvalidInput
from ..system.descriptor_shortage import translate_shortage
from .base import RegistryBase
from .waiting import paged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..model import Event, EventKind, EventName, NewEvent, Page


class EventVerbs(RegistryBase):
    """The verbs for events."""

    def publish(
        self,
        job_id: str,
        event: EventKind | EventName,
        *,
        detail: str = "",
        data: Mapping[str, Any] | None = None,
        attempt: int | None = None,
    ) -> Event:
        """Publish an event: number it, sign it, record it, and queue it for the broker if the job has one.

        Args:
            job_id: the id of the job.
            event: "started", "progress", "permission_required", "completed" or "error".
            detail: a sentence for people, up to 65,536 characters.
            data: further facts, JSON-serializable.
            attempt: the attempt of the claim that it belongs to. A job that is held under a lease demands it. Without a
                lease, None means the current claim, whoever holds it: the call is not fenced.

        Returns:
            The event; its ``payload`` is its wire form.

        Raises:
            InvalidInput: an argument is invalid.
            UnknownJob: there is no job with that id.
            IllegalTransition: the job has ended.
            StaleAttempt: the claim was taken over or released.
            AttemptRequired: the job is held under a lease, and ``attempt`` is None.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> claim = registry.claim(worker="host1:4711")
            >>> event = registry.publish("sort-1", "progress", detail="step 1", data={"pct": 10}, attempt=claim.attempt)
            >>> event.seq, event.event, event.data["pct"]
            (1, <EventKind.PROGRESS: 'progress'>, 10)
        """
        checked = checked_event(job_id, event, detail, {} if data is None else data, attempt)
        return self.engine.publish([checked])[0]

    def publish_many(self, events: Iterable[NewEvent]) -> list[Event]:
        """Publish several events in one transaction: all or none.

        Args:
            events: the events, each with the arguments of :meth:`publish`.

        Returns:
            The events in the order given.

        Raises:
            InvalidInput: as for :meth:`publish`.
            UnknownJob: as for :meth:`publish`.
            IllegalTransition: as for :meth:`publish`.
            StaleAttempt: as for :meth:`publish`.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> events = registry.publish_many(
            ...     [NewEvent(job_id="sort-1", event="started"), NewEvent(job_id="sort-1", event="progress")]
            ... )
            >>> [event.seq for event in events]
            [1, 2]
        """
        checked = []
        for event in arguments.items("events", events, of="NewEvent"):
            if not isinstance(event, model.NewEvent):
                raise InvalidInput(f"an event to publish must be a NewEvent, not {type(event).__name__}")
            checked.append(checked_event(event.job_id, event.event, event.detail, event.data, event.attempt))
        return self.engine.publish(checked) if checked else []

    @translate_shortage
    def complete(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        detail: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> Event:
        """End a job as completed: publish ``completed``. Arguments and errors as for :meth:`publish`.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> event = registry.complete("sort-1", detail="all sorted")
            >>> registry.get("sort-1").status
            <JobStatus.COMPLETED: 'completed'>
        """
        return self.publish(job_id, "completed", detail=detail, data=data, attempt=attempt)

    @translate_shortage
    def fail(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        detail: str = "",
        data: Mapping[str, Any] | None = None,
    ) -> Event:
        """End a job as failed: publish ``error``. Arguments and errors as for :meth:`publish`.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> event = registry.fail("sort-1", detail="the input is missing")
            >>> registry.get("sort-1").status
            <JobStatus.ERROR: 'error'>
        """
        return self.publish(job_id, "error", detail=detail, data=data, attempt=attempt)

    @translate_shortage
    def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> Page[Event, int]:
        """Return one page of the events of a job, in order. :meth:`all_events` iterates over all pages.

        Args:
            job_id: the id of the job.
            after: the ``next_after`` of the previous page: the seq of its last event.
            limit: the length of the page, 1 to 10,000.

        Returns:
            The page; see its ``has_more`` and ``next_after`` for the next one.

        Raises:
            UnknownJob: there is no job with that id.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> events = registry.publish_many([NewEvent(job_id="sort-1", event="progress")] * 3)
            >>> page = registry.events("sort-1", limit=2)
            >>> [event.seq for event in page], page.has_more, page.next_after
            ([1, 2], True, 2)
            >>> [event.seq for event in registry.events("sort-1", after=2)]
            [3]
        """
        after = arguments.integer("after", after, least=0, most=2**53)
        return self._page_of_events(arguments.job_id(job_id), after, arguments.page_limit(limit))

    @paged
    def all_events(self, job_id: str, *, after: int = 0, page_size: int = 100) -> Iterator[Page[Event, int]]:
        """Iterate over all events of a job, in order, reading one page at a time to bound memory.

        The iteration ends after the last recorded event; :meth:`subscribe` waits for further ones.

        Args:
            job_id: the id of the job.
            after: begin after the event with this seq.
            page_size: how many events to read at once, 1 to 10,000.

        Raises:
            InvalidInput: ``after`` or ``page_size`` is out of range.
            UnknownJob: there is no job with that id, or it was pruned during the iteration.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> events = registry.publish_many([NewEvent(job_id="sort-1", event="progress")] * 3)
            >>> [event.seq for event in registry.all_events("sort-1", page_size=2)]
            [1, 2, 3]
        """
        after = arguments.integer("after", after, least=0, most=2**53)
        job_id = arguments.job_id(job_id)
        limit = arguments.page_limit(page_size, name="page_size")
        page = self._page_of_events(job_id, after, limit)
        yield page
        while page.has_more:
            page = self._page_of_events(job_id, page[-1].seq, limit)
            yield page

    def _page_of_events(self, job_id: str, after: int, limit: int) -> Page[Event, int]:
        found = self.engine.events(job_id, after=after, limit=limit + 1)
        return model.cut_page(found, limit, cursor=_seq_of)


def _seq_of(event: Event) -> int:
    return event.seq


def checked_event(job_id: object, event: object, detail: object, data: object, attempt: object) -> NewEvent:
    if type(data) is not dict:
        data = arguments.mapping("data", data)
    return model.NewEvent(
        job_id=arguments.job_id(job_id),
        event=arguments.event_kind(event),
        detail=arguments.text("detail", detail, most=MAX_DETAIL_CHARS, least=0),
        data=data,
        attempt=None if attempt is None else arguments.integer("attempt", attempt, least=0, most=MAX_SEQ),
    )
