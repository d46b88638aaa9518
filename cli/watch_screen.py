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
from jobdb.system.durations import format_duration
from jobdb.system.terminal import sanitize

if TYPE_CHECKING:
    from jobdb.registry import Registry

_STYLES = {
    JobStatus.PENDING: "cyan",
    JobStatus.RUNNING: "yellow",
    JobStatus.COMPLETED: "green",
    JobStatus.ERROR: "bold red",
    JobStatus.CANCELLED: "dim",
}
_STATUS_ORDER = [JobStatus.RUNNING, JobStatus.PENDING, JobStatus.ERROR, JobStatus.COMPLETED, JobStatus.CANCELLED]
_KEY_HELP = "↑↓ choose · Enter open · f status · / agent · q end"
_ESCAPE = "\x1b"
_KEY_PATTERN = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Za-z])|.", re.DOTALL)
_KEY_NAMES = {
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
_LATEST_EVENTS = 100


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
        self._selected_row = 0
        self._selected: str | None = None
        self._snapshot: Snapshot | None = None
        self._initial_refusals: dict[Verdict, int] | None = None
        self._job: tuple[Job, list[Event]] | None = None
        self._scroll = 0
        self._page = 10

    # -- reading

    def refresh(self, registry: Registry) -> None:
        """Reads the state of now. The chosen job stays chosen wherever it has moved to."""
        now = snapshot(registry, status=self.status, agent=self.agent or None)
        self._snapshot = now
        if self._initial_refusals is None:
            self._initial_refusals = now.verdicts
        rows = {job.job_id: row for row, job in enumerate(now.jobs)}
        self._select(rows.get(self._selected or "", self._selected_row))
        self._job = None
        if self.opened is not None:
            try:
                job = registry.get(self.opened)
                self._job = job, registry.events(self.opened, after=max(0, job.last_seq - _LATEST_EVENTS))
            except UnknownJob:
                self.opened = None
        self.dirty = False

    def _select(self, row: int) -> None:
        jobs = self._snapshot.jobs if self._snapshot else ()
        self._selected_row = max(0, min(row, len(jobs) - 1))
        self._selected = jobs[self._selected_row].job_id if jobs else None

    # -- keys

    def key(self, typed: str) -> None:
        """Reacts to what was typed: one key, or several that came together."""
        self.dirty = self.dirty or bool(typed)
        for key in _KEY_PATTERN.findall(typed):
            if self.typing:
                self._edit_filter(key)
            elif key in _KEY_NAMES:
                self._apply_key(_KEY_NAMES[key])

    def _apply_key(self, key: str) -> None:
        steps = {"up": -1, "down": 1, "page up": -self._page, "page down": self._page, "home": -(10**9), "end": 10**9}
        if key == "quit":
            self.done = True
        elif key == "back":
            self.opened, self._job = None, None
        elif key in steps and self.opened is not None:
            self._scroll = max(0, min(self._scroll - steps[key], _LATEST_EVENTS))
        elif key in steps:
            self._select(self._selected_row + steps[key])
        elif self.opened is not None:
            return
        elif key == "enter":
            self.opened, self._scroll = self._selected, 0
        elif key == "status":
            self.status = _STATUS_ORDER[(_STATUS_ORDER.index(self.status) + 1) % len(_STATUS_ORDER)]
            self._selected_row, self._selected = 0, None
        elif key == "agent":
            self.typing, self.agent = True, ""

    def _edit_filter(self, key: str) -> None:
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
        first = max(0, min(self._selected_row - self._page // 2, len(now.jobs) - self._page))
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), expand=True)
        wide = size.width >= 110
        for name, width in (("JOB", 24 if wide else 13), ("AGENT", 20 if wide else 12), ("TRY", 3)):
            table.add_column(name, no_wrap=True, width=width, overflow="ellipsis")
        for name, width in (("TIME", 9), ("IDLE", 9), ("LEASE", 5)):
            table.add_column(name, no_wrap=True, width=width, overflow="ellipsis")
        table.add_column("LAST", no_wrap=True, overflow="ellipsis", ratio=1)
        for row, job in enumerate(now.jobs[first : first + self._page], start=first):
            selected = row == self._selected_row
            table.add_row(*_cells(job, selected=selected), style="reverse" if selected else "")
        lines: list[RenderableType] = [self._counts(now), Text(""), table]
        if not now.jobs:
            lines.append(
                Text(f"no {self.status} job" + (f" of an agent like {self.agent!r}" if self.agent else ""), "dim")
            )
        drawn = min(len(now.jobs), self._page) or 1
        lines += [Text("")] * max(0, self._page - drawn)
        lines += refusals
        more = f"{first + 1}–{min(first + self._page, len(now.jobs))} of {len(now.jobs)} · " if now.jobs else ""
        prompt = f"agent: {sanitize(self.agent)}▏ Enter" if self.typing else more + self._filter() + _KEY_HELP
        lines.append(Text(prompt, "dim", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _filter(self) -> str:
        return f"agent like {sanitize(self.agent)} · " if self.agent else ""

    def _counts(self, now: Snapshot) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        for status in _STATUS_ORDER:
            style = _STYLES[status] if now.counts[status] else "dim"
            style += " underline" if status is self.status else ""
            text.append(f"{now.counts[status]} {status}", style)
            text.append("  ")
        asking = sum(job.awaits_permission for job in now.jobs)
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
            new = count - (self._initial_refusals or {}).get(verdict, 0)
            text.append(f"{count} {verdict}" + (f" (+{new})" if new else ""), "bold red reverse" if new else "red")
            text.append("  ")
        return [text, *(self._refusal_line(now, index) for index in range(min(3, len(now.refusals))))]

    @staticmethod
    def _refusal_line(now: Snapshot, index: int) -> Text:
        refusal = now.refusals[index]
        ago = _format_duration((now.taken_ms - refusal.recorded_at.timestamp() * 1000) / 1000)
        line = f"{refusal.verdict} {ago} ago: job {refusal.job_id} seq {refusal.seq}: {refusal.reason}"
        return Text(sanitize(line), "red", no_wrap=True, overflow="ellipsis")

    def _draw_job(self, job: Job, events: list[Event], size: ConsoleDimensions) -> RenderableType:
        head = Text.assemble(
            (sanitize(job.job_id), "bold"), "  ", (job.status.value, _STYLES[job.status]), f"  {sanitize(job.agent)}"
        )
        head.append(f"  attempt {job.attempt}" + (f"  {sanitize(job.worker)}" if job.worker else ""))
        prompt = Text(sanitize(job.prompt, keep="\n"), overflow="ellipsis")
        prompt = Text("\n").join(prompt.split("\n", allow_blank=True)[:4])
        table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
        for name, width in (("SEQ", 6), ("AT", 20), ("EVENT", 19)):
            table.add_column(name, no_wrap=True, width=width)
        table.add_column("DETAIL", no_wrap=True, overflow="ellipsis", ratio=1)
        room = max(3, size.height - 11)
        self._page = room
        self._scroll = max(0, min(self._scroll, len(events) - room))
        for event in events[max(0, len(events) - room - self._scroll) : len(events) - self._scroll]:
            table.add_row(str(event.seq), sanitize(event.timestamp), event.event.value, Text(sanitize(event.detail)))
        foot = Text("↑↓ older, newer · Esc back · q end", "dim")
        return Group(head, Text(""), prompt, Text(""), table, Text(""), foot)


def _cells(job: WatchedJob, *, selected: bool) -> list[Text]:
    lease = (
        "" if job.lease_left_sec is None else _format_duration(job.lease_left_sec) if job.lease_left_sec > 0 else "out"
    )
    said = "asks" if job.awaits_permission else job.last_event or ""
    detail = f"{said}: {job.detail}" if job.detail and said else said or job.detail or ""
    cells = [
        (job.job_id, "bold magenta" if job.awaits_permission else _STYLES[job.status]),
        (job.agent, ""),
        (str(job.attempt), ""),
        (_format_with_limit(job.running_sec, job.timeout_sec), _limit_style(job.running_sec, job.timeout_sec)),
        (_format_with_limit(job.idle_sec, job.idle_timeout_sec), _limit_style(job.idle_sec, job.idle_timeout_sec)),
        (lease, "red" if lease == "out" else ""),
        (detail, "bold magenta" if job.awaits_permission else ""),
    ]
    return [Text(sanitize(text), "" if selected else style) for text, style in cells]


def _limit_style(seconds: float | None, limit: int) -> str:
    """Yellow when four fifths of a limit are used up, red when all of it is."""
    used = seconds / limit if seconds is not None and limit else 0.0
    return "bold red" if used >= 1 else "yellow" if used >= 0.8 else ""


def _format_with_limit(seconds: float | None, limit: int) -> str:
    """A time and the limit that it runs against."""
    if seconds is None:
        return ""
    return f"{_format_duration(seconds)}/{_format_duration(limit)}" if limit else _format_duration(seconds)


def _format_duration(seconds: float) -> str:
    return format_duration(seconds, precise=True)
