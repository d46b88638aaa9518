"""The display of ``jobdb work``: a line per slot on a terminal, otherwise log lines, or a JSON object per transition.

Called by ``work``; imports Rich only on a terminal. All text that came from a job is sanitized.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

from jobdb.system.terminal import sanitize
from jobdb.work import transitions

from . import output
from .formatting import first_line, pluralize, truncate

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, ConsoleOptions, RenderResult

    from jobdb.work.transitions import Transition

_DETAIL_CHARS = 200
_ENDED_STYLES = {"completed": "green", "error": "bold red", "returned": "yellow", "lost": "yellow"}


class Display(Protocol):
    """Shows the transitions of a worker, from its thread."""

    def show(self, transition: Transition) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_display(*, as_json: bool, slots: int) -> Display:
    """Return the display for this stdout."""
    if as_json:
        return JsonDisplay()
    return SlotDisplay(slots) if output.on_terminal() else LineDisplay()


class _PlainDisplay:
    """A display that needs no preparation."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class JsonDisplay(_PlainDisplay):
    """One JSON object per transition, with its time."""

    def show(self, transition: Transition) -> None:
        output.print_json({"at": _timestamp(), **transition.as_dict()})
        output.flush()


class LineDisplay(_PlainDisplay):
    """One line per transition, for a log."""

    def show(self, transition: Transition) -> None:
        text = describe(transition)
        if text:
            output.print_line(sanitize(f"{_timestamp()} {text}"))
            output.flush()


class SlotDisplay:
    """One line per slot, redrawn; what has ended scrolls by above them.

    Args:
        slots: how many jobs run at a time.
    """

    def __init__(self, slots: int) -> None:
        from rich.live import Live

        from .tables import console

        self._slots = slots
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], _Running] = {}
        self._state = "waiting for jobs"
        self._console = console()
        self._live = Live(self, console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, transition: Transition) -> None:
        with self._lock:
            self._note(transition)
        text = None if isinstance(transition, transitions.Published | transitions.Started) else describe(transition)
        if text:
            from rich.text import Text

            style = _ENDED_STYLES.get(getattr(transition, "status", transition.kind), "")
            self._console.print(Text(sanitize(f"{_clock()} {text}"), style=style, overflow="ellipsis", no_wrap=True))

    def _note(self, transition: Transition) -> None:
        match transition:
            case transitions.Claimed(job_id=job_id, attempt=attempt, job=job):
                self._running[job_id, attempt] = _Running(job.agent, first_line(job.prompt))
            case transitions.Published(job_id=job_id, attempt=attempt) as event:
                running = self._running.get((job_id, attempt))
                if running is not None:
                    running.last = f"{event.event}: {event.detail}" if event.detail else event.event
            case transitions.Stopping(job_id=job_id, attempt=attempt, reason=reason):
                running = self._running.get((job_id, attempt))
                if running is not None:
                    running.last = f"stopping: {reason}"
            case transitions.Ended() | transitions.Returned() | transitions.Lost():
                self._running.pop((transition.job_id, transition.attempt), None)
            case transitions.Draining():
                self._state = "draining; press Ctrl-C again to stop at once"
            case _:
                pass

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("job", "agent", "age"):
            table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=36)
        table.add_column("last event", no_wrap=True, overflow="ellipsis", ratio=1)
        with self._lock:
            for (job_id, attempt), running in self._running.items():
                name = job_id if attempt == 1 else f"{job_id} (attempt {attempt})"
                table.add_row(
                    Text(sanitize(name)),
                    Text(sanitize(running.agent)),
                    running.age(),
                    Text(sanitize(running.last or running.prompt), style="" if running.last else "dim"),
                )
            busy = len(self._running)
        yield Text(f"{busy} of {pluralize(self._slots, 'slot')} busy · {self._state}", style="dim")
        if busy:
            yield table


class _Running:
    """The line of a slot."""

    def __init__(self, agent: str, prompt: str) -> None:
        self.agent = agent
        self.prompt = prompt
        self.last = ""
        self._began = time.monotonic()

    def age(self) -> str:
        from jobdb.system.durations import format_duration

        return format_duration(time.monotonic() - self._began)


def describe(transition: Transition) -> str:
    """Return a transition as a line for people; empty if it is not worth one."""
    match transition:
        case transitions.Claimed(job=job):
            return f"{_attempt(transition)} claimed, {job.agent}: {first_line(job.prompt)}"
        case transitions.Started(pid=pid):
            return f"{_attempt(transition)} started" + ("" if pid is None else f", process {pid}")
        case transitions.Published(event=event, detail=detail):
            return f"{_attempt(transition)} {event}" + (f": {_short(detail)}" if detail else "")
        case transitions.Noted(text=text):
            return f"{_attempt(transition)} note: {_short(text)}"
        case transitions.Stopping(reason=reason):
            return f"{_attempt(transition)} stopping: {_short(reason)}"
        case transitions.Ended(status=status, detail=detail, duration_sec=duration):
            return f"{_attempt(transition)} {status} after {duration:.1f} s" + (f": {_short(detail)}" if detail else "")
        case transitions.Returned(reason=reason, delay_sec=delay, counts=counts):
            again = f", tried again in {delay:g} s" if delay else ", pending again"
            return (
                f"{_attempt(transition)} given back{again}{' (a try is used up)' if counts else ''}: {_short(reason)}"
            )
        case transitions.Lost(reason=reason):
            return f"{_attempt(transition)} lost: {_short(reason)}"
        case transitions.Reaped(job_id=job_id, action=action, reason=reason):
            return f"{job_id} {action}: {_short(reason)}"
        case transitions.Draining(running=running, drain_sec=drain_sec):
            return f"draining: {pluralize(len(running), 'job')} may run for {drain_sec:g} s more"
        case transitions.Trouble(error=error, retry_sec=retry_sec):
            return f"the database cannot be used, trying again in {retry_sec:g} s: {_short(error)}"
        case transitions.WorkerStarted(worker=worker, slots=slots):
            return f"worker {worker} started with {pluralize(slots, 'slot')}"
        case transitions.WorkerEnded():
            totals = {name: getattr(transition, name) for name in ("completed", "failed", "returned", "lost")}
            told = ", ".join(f"{count} {name}" for name, count in totals.items() if count or name == "completed")
            return f"worker ended: {pluralize(transition.claimed, 'attempt')}, {told}"
        case _:
            return ""


def _attempt(transition: Any) -> str:
    return f"{transition.job_id} attempt {transition.attempt}:"


def _short(text: str) -> str:
    return truncate(" ".join(text.split()), _DETAIL_CHARS)


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _clock() -> str:
    return time.strftime("%H:%M:%S")
