"""The live view's screen: what it looks like and what its keys do. Drawn with rich, from a snapshot; reads no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobdb.errors import UnknownJob
from jobdb.model import Event, Job, JobStatus
from jobdb.watching import Snapshot, WatchedJob, snapshot

from .output import visible

if TYPE_CHECKING:
    from jobdb.registry import Registry

_STYLES = {
    JobStatus.PENDING: "cyan",
    JobStatus.RUNNING: "yellow",
    JobStatus.COMPLETED: "green",
    JobStatus.ERROR: "bold red",
    JobStatus.CANCELLED: "dim",
}
_ORDER = [JobStatus.RUNNING, JobStatus.PENDING, JobStatus.ERROR, JobStatus.COMPLETED, JobStatus.CANCELLED]
_KEYS = "↑↓ choose · Enter open · f status · / agent · q end"
_UP, _DOWN, _PAGE_UP, _PAGE_DOWN = "\x1b[A", "\x1b[B", "\x1b[5~", "\x1b[6~"


class View:
    """What is shown and chosen. ``refresh`` reads, ``draw`` draws, ``key`` reacts."""

    def __init__(self, *, agent: str = "") -> None:
        self.agent = agent
        self.status = JobStatus.RUNNING
        self.chosen = 0
        self.opened: str | None = None
        self.typing = False
        self.done = False
        self.dirty = True
        self._snapshot: Snapshot | None = None
        self._job: tuple[Job, list[Event]] | None = None
        self._page = 10

    # -- reading

    def refresh(self, registry: Registry) -> None:
        """Reads the state of now."""
        self._snapshot = snapshot(registry, status=self.status, agent=self.agent or None)
        self.chosen = max(0, min(self.chosen, len(self._snapshot.jobs) - 1))
        self._job = None
        if self.opened is not None:
            try:
                job = registry.get(self.opened)
                self._job = job, registry.events(self.opened, after=max(0, job.last_seq - 100))
            except UnknownJob:
                self.opened = None
        self.dirty = False

    # -- keys

    def key(self, typed: str) -> None:
        """Reacts to what was typed: one key, or several that came together."""
        self.dirty = True
        if self.typing:
            self._type(typed)
        elif typed in ("\x1b", "\x7f", "h"):
            self.opened = None
        elif typed in (_UP, "k", _DOWN, "j", _PAGE_UP, _PAGE_DOWN):
            steps = {_UP: -1, "k": -1, _DOWN: 1, "j": 1, _PAGE_UP: -self._page, _PAGE_DOWN: self._page}
            self.chosen = max(0, self.chosen + steps[typed])
        elif typed in ("\r", "\n") and self._snapshot and self._snapshot.jobs:
            self.opened = self._snapshot.jobs[self.chosen].job_id
        elif typed == "f":
            self.status = _ORDER[(_ORDER.index(self.status) + 1) % len(_ORDER)]
            self.chosen = 0
        elif typed == "/":
            self.typing, self.agent = True, ""
        elif typed in ("q", "\x03", "\x04"):
            self.done = True

    def _type(self, typed: str) -> None:
        for character in typed:
            if character in "\r\n\x1b":
                self.typing = False
                return
            if character in "\x7f\b":
                self.agent = self.agent[:-1]
            elif character.isprintable():
                self.agent += character

    # -- drawing

    def draw(self, size: ConsoleDimensions) -> RenderableType:
        """The whole screen for a terminal of that size."""
        assert self._snapshot is not None
        if self._job is not None:
            return self._draw_job(*self._job, size)
        return self._draw_jobs(self._snapshot, size)

    def _draw_jobs(self, now: Snapshot, size: ConsoleDimensions) -> RenderableType:
        refusals = [self._refusal_line(now, index) for index in range(min(3, len(now.refusals)))]
        self._page = max(3, size.height - 6 - len(refusals))
        first = max(0, min(self.chosen - self._page // 2, len(now.jobs) - self._page))
        table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
        for name, width in (("JOB", 14), ("AGENT", 13), ("TRY", 3), ("TIME", 12), ("IDLE", 12), ("LEASE", 6)):
            table.add_column(name, no_wrap=True, width=width, overflow="ellipsis")
        table.add_column("LAST", no_wrap=True, overflow="ellipsis", ratio=1)
        for index, job in enumerate(now.jobs[first : first + self._page], start=first):
            table.add_row(*_cells(job), style="reverse" if index == self.chosen else "")
        lines: list[RenderableType] = [self._counts(now), Text(""), table]
        if not now.jobs:
            lines.append(
                Text(f"no {self.status} job" + (f" of an agent like {self.agent!r}" if self.agent else ""), "dim")
            )
        drawn = min(len(now.jobs), self._page) or 1
        lines += [Text("")] * max(0, self._page - drawn)
        lines += refusals
        more = f"{first + 1}–{min(first + self._page, len(now.jobs))} of {len(now.jobs)} · " if now.jobs else ""
        prompt = f"agent: {self.agent}▏ Enter" if self.typing else more + _KEYS
        lines.append(Text(prompt, "dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _counts(self, now: Snapshot) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        for status in _ORDER:
            style = _STYLES[status] + (" underline" if status is self.status else "")
            text.append(f"{now.counts[status]} {status}", style)
            text.append("  ")
        asking = sum(job.asks for job in now.jobs)
        if asking:
            text.append(f"{asking} ask permission  ", "bold magenta")
        if now.outbox:
            text.append(f"{now.outbox} to deliver", "blue")
        return text

    @staticmethod
    def _refusal_line(now: Snapshot, index: int) -> Text:
        refusal = now.refusals[index]
        ago = _span((now.taken_ms - refusal.recorded_at.timestamp() * 1000) / 1000)
        line = f"{refusal.verdict} {ago} ago: job {refusal.job_id} seq {refusal.seq}: {refusal.reason}"
        return Text(visible(line), "red", no_wrap=True, overflow="ellipsis")

    def _draw_job(self, job: Job, events: list[Event], size: ConsoleDimensions) -> RenderableType:
        head = Text.assemble((job.job_id, "bold"), "  ", (job.status.value, _STYLES[job.status]), f"  {job.agent}")
        head.append(f"  attempt {job.attempt}" + (f"  {visible(job.worker)}" if job.worker else ""))
        prompt = Text(visible(job.prompt, keep="\n"), overflow="ellipsis")
        prompt = Text("\n").join(prompt.split("\n", allow_blank=True)[:4])
        table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
        for name, width in (("SEQ", 6), ("AT", 20), ("EVENT", 19)):
            table.add_column(name, no_wrap=True, width=width)
        table.add_column("DETAIL", no_wrap=True, overflow="ellipsis", ratio=1)
        room = max(3, size.height - 10)
        for event in events[-room:]:
            table.add_row(str(event.seq), event.timestamp, event.event.value, Text(visible(event.detail)))
        return Group(head, Text(""), prompt, Text(""), table, Text(""), Text("Esc back · q end", "dim"))


def _cells(job: WatchedJob) -> list[Text]:
    over = "bold red" if job.strain >= 1 else "yellow" if job.strain >= 0.8 else ""
    lease = "" if job.lease_left_sec is None else _span(job.lease_left_sec) if job.lease_left_sec > 0 else "out"
    said = "asks permission" if job.asks else job.last_event or ""
    detail = f"{said}: {job.detail}" if job.detail and said else said or job.detail or ""
    return [
        Text(job.job_id, "bold magenta" if job.asks else _STYLES[job.status]),
        Text(visible(job.agent)),
        Text(str(job.attempt)),
        Text(_against(job.running_sec, job.timeout_sec), over),
        Text(_against(job.idle_sec, job.idle_timeout_sec), over),
        Text(lease, "red" if lease == "out" else ""),
        Text(visible(detail), "bold magenta" if job.asks else ""),
    ]


def _against(seconds: float | None, limit: int) -> str:
    """A time and the limit that it runs against."""
    if seconds is None:
        return ""
    return f"{_span(seconds)}/{_span(limit)}" if limit else _span(seconds)


def _span(seconds: float) -> str:
    """A duration in at most five characters."""
    seconds = max(0, round(seconds))
    for size, word in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size * 2 or (seconds >= size and seconds % size == 0):
            return f"{seconds // size}{word}"
    return f"{seconds}s"
