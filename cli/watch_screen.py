"""The live view's screen: what it looks like and what its keys do. Drawn with rich, from a snapshot; reads no clock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobdb.errors import UnknownJob
from jobdb.model import Event, Job, JobStatus, Verdict
from jobdb.operations.snapshot import Snapshot, WatchedJob, snapshot
from jobdb.system.terminal import visible

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
_ESCAPE = "\x1b"
_KEY = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Za-z])|.", re.DOTALL)
_NAMES = {
    "\x1b[A": "up", "\x1bOA": "up", "k": "up",
    "\x1b[B": "down", "\x1bOB": "down", "j": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down", " ": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home", "g": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end", "G": "end",
    "\r": "enter", "\n": "enter",
    _ESCAPE: "back", "\x7f": "back", "\b": "back", "h": "back",
    "f": "status", "/": "agent",
    "q": "quit", "\x03": "quit", "\x04": "quit",
}  # fmt: skip
_LATEST = 100


class View:
    """What is shown and chosen. ``refresh`` reads, ``draw`` draws, ``key`` reacts.

    Attributes:
        agent: only jobs whose agent's name contains this.
        status: which jobs are shown.
        opened: the job that is shown by itself.
        typing: keys go into ``agent``.
        done: the person wants to end.
        dirty: something was typed since the last ``refresh``.
    """

    def __init__(self, *, agent: str = "") -> None:
        self.agent = agent
        self.status = JobStatus.RUNNING
        self.opened: str | None = None
        self.typing = False
        self.done = False
        self.dirty = True
        self._place = 0
        self._chosen: str | None = None
        self._snapshot: Snapshot | None = None
        self._refused_before: dict[Verdict, int] | None = None
        self._job: tuple[Job, list[Event]] | None = None
        self._older = 0
        self._page = 10

    # -- reading

    def refresh(self, registry: Registry) -> None:
        """Reads the state of now. The chosen job stays chosen wherever it has moved to."""
        now = snapshot(registry, status=self.status, agent=self.agent or None)
        self._snapshot = now
        if self._refused_before is None:
            self._refused_before = now.verdicts
        places = {job.job_id: place for place, job in enumerate(now.jobs)}
        self._choose(places.get(self._chosen or "", self._place))
        self._job = None
        if self.opened is not None:
            try:
                job = registry.get(self.opened)
                self._job = job, registry.events(self.opened, after=max(0, job.last_seq - _LATEST))
            except UnknownJob:
                self.opened = None
        self.dirty = False

    def _choose(self, place: int) -> None:
        jobs = self._snapshot.jobs if self._snapshot else ()
        self._place = max(0, min(place, len(jobs) - 1))
        self._chosen = jobs[self._place].job_id if jobs else None

    # -- keys

    def key(self, typed: str) -> None:
        """Reacts to what was typed: one key, or several that came together."""
        self.dirty = self.dirty or bool(typed)
        for key in _KEY.findall(typed):
            if self.typing:
                self._type(key)
            elif key in _NAMES:
                self._act(_NAMES[key])

    def _act(self, key: str) -> None:
        steps = {"up": -1, "down": 1, "page up": -self._page, "page down": self._page, "home": -(10**9), "end": 10**9}
        if key == "quit":
            self.done = True
        elif key == "back":
            self.opened, self._job = None, None
        elif key in steps and self.opened is not None:
            self._older = max(0, min(self._older - steps[key], _LATEST))
        elif key in steps:
            self._choose(self._place + steps[key])
        elif self.opened is not None:
            return
        elif key == "enter":
            self.opened, self._older = self._chosen, 0
        elif key == "status":
            self.status = _ORDER[(_ORDER.index(self.status) + 1) % len(_ORDER)]
            self._place, self._chosen = 0, None
        elif key == "agent":
            self.typing, self.agent = True, ""

    def _type(self, key: str) -> None:
        if key in ("\r", "\n", _ESCAPE):
            self.typing = False
        elif key in ("\x7f", "\b"):
            self.agent = self.agent[:-1]
        elif key == "\x03":
            self.done = True
        elif key.isprintable():
            self.agent += key

    # -- drawing

    def draw(self, size: ConsoleDimensions) -> RenderableType:
        """The whole screen for a terminal of that size."""
        assert self._snapshot is not None
        if self._job is not None:
            return self._draw_job(*self._job, size)
        return self._draw_jobs(self._snapshot, size)

    def _draw_jobs(self, now: Snapshot, size: ConsoleDimensions) -> RenderableType:
        refusals = self._refusals(now)
        self._page = max(3, size.height - 4 - len(refusals))
        first = max(0, min(self._place - self._page // 2, len(now.jobs) - self._page))
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), expand=True)
        wide = size.width >= 110
        for name, width in (("JOB", 24 if wide else 13), ("AGENT", 20 if wide else 12), ("TRY", 3)):
            table.add_column(name, no_wrap=True, width=width, overflow="ellipsis")
        for name, width in (("TIME", 9), ("IDLE", 9), ("LEASE", 5)):
            table.add_column(name, no_wrap=True, width=width, overflow="ellipsis")
        table.add_column("LAST", no_wrap=True, overflow="ellipsis", ratio=1)
        for place, job in enumerate(now.jobs[first : first + self._page], start=first):
            chosen = place == self._place
            table.add_row(*_cells(job, chosen=chosen), style="reverse" if chosen else "")
        lines: list[RenderableType] = [self._counts(now), Text(""), table]
        if not now.jobs:
            lines.append(
                Text(f"no {self.status} job" + (f" of an agent like {self.agent!r}" if self.agent else ""), "dim")
            )
        drawn = min(len(now.jobs), self._page) or 1
        lines += [Text("")] * max(0, self._page - drawn)
        lines += refusals
        more = f"{first + 1}–{min(first + self._page, len(now.jobs))} of {len(now.jobs)} · " if now.jobs else ""
        prompt = f"agent: {visible(self.agent)}▏ Enter" if self.typing else more + self._filter() + _KEYS
        lines.append(Text(prompt, "dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _filter(self) -> str:
        return f"agent like {visible(self.agent)} · " if self.agent else ""

    def _counts(self, now: Snapshot) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        for status in _ORDER:
            style = _STYLES[status] if now.counts[status] else "dim"
            style += " underline" if status is self.status else ""
            text.append(f"{now.counts[status]} {status}", style)
            text.append("  ")
        asking = sum(job.asks for job in now.jobs)
        if asking:
            text.append(f"{asking} ask  ", "bold magenta")
        if now.outbox:
            text.append(f"{now.outbox} to deliver", "blue")
        return text

    def _refusals(self, now: Snapshot) -> list[Text]:
        """How often each verdict refused something, more prominent where it did since the view began; the latest."""
        if not now.verdicts:
            return []
        text = Text("refused: ", "red", no_wrap=True, overflow="ellipsis")
        for verdict, count in now.verdicts.items():
            new = count - (self._refused_before or {}).get(verdict, 0)
            text.append(f"{count} {verdict}" + (f" (+{new})" if new else ""), "bold red reverse" if new else "red")
            text.append("  ")
        return [text, *(self._refusal_line(now, index) for index in range(min(3, len(now.refusals))))]

    @staticmethod
    def _refusal_line(now: Snapshot, index: int) -> Text:
        refusal = now.refusals[index]
        ago = _span((now.taken_ms - refusal.recorded_at.timestamp() * 1000) / 1000)
        line = f"{refusal.verdict} {ago} ago: job {refusal.job_id} seq {refusal.seq}: {refusal.reason}"
        return Text(visible(line), "red", no_wrap=True, overflow="ellipsis")

    def _draw_job(self, job: Job, events: list[Event], size: ConsoleDimensions) -> RenderableType:
        head = Text.assemble(
            (visible(job.job_id), "bold"), "  ", (job.status.value, _STYLES[job.status]), f"  {visible(job.agent)}"
        )
        head.append(f"  attempt {job.attempt}" + (f"  {visible(job.worker)}" if job.worker else ""))
        prompt = Text(visible(job.prompt, keep="\n"), overflow="ellipsis")
        prompt = Text("\n").join(prompt.split("\n", allow_blank=True)[:4])
        table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
        for name, width in (("SEQ", 6), ("AT", 20), ("EVENT", 19)):
            table.add_column(name, no_wrap=True, width=width)
        table.add_column("DETAIL", no_wrap=True, overflow="ellipsis", ratio=1)
        room = max(3, size.height - 11)
        self._page = room
        self._older = max(0, min(self._older, len(events) - room))
        for event in events[max(0, len(events) - room - self._older) : len(events) - self._older]:
            table.add_row(str(event.seq), visible(event.timestamp), event.event.value, Text(visible(event.detail)))
        foot = Text("↑↓ older, newer · Esc back · q end", "dim")
        return Group(head, Text(""), prompt, Text(""), table, Text(""), foot)


def _cells(job: WatchedJob, *, chosen: bool) -> list[Text]:
    lease = "" if job.lease_left_sec is None else _span(job.lease_left_sec) if job.lease_left_sec > 0 else "out"
    said = "asks" if job.asks else job.last_event or ""
    detail = f"{said}: {job.detail}" if job.detail and said else said or job.detail or ""
    cells = [
        (job.job_id, "bold magenta" if job.asks else _STYLES[job.status]),
        (job.agent, ""),
        (str(job.attempt), ""),
        (_against(job.running_sec, job.timeout_sec), _strain(job.running_sec, job.timeout_sec)),
        (_against(job.idle_sec, job.idle_timeout_sec), _strain(job.idle_sec, job.idle_timeout_sec)),
        (lease, "red" if lease == "out" else ""),
        (detail, "bold magenta" if job.asks else ""),
    ]
    return [Text(visible(text), "" if chosen else style) for text, style in cells]


def _strain(seconds: float | None, limit: int) -> str:
    """Yellow when four fifths of a limit are used up, red when all of it is."""
    used = seconds / limit if seconds is not None and limit else 0.0
    return "bold red" if used >= 1 else "yellow" if used >= 0.8 else ""


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
