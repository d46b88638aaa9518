"""The live view: its state, what its keys do, and how it is drawn with Rich from a snapshot; reads no clock.

Called by ``watch``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobdb.errors import JobdbError, UnknownJob
from jobdb.model import Event, Job, JobStatus, Question, Verdict
from jobdb.operations.snapshot import Snapshot, WatchedJob, snapshot
from jobdb.system.durations import format_duration
from jobdb.system.terminal import sanitize

from .formatting import PERMISSION_STYLE, STATUS_STYLES, format_tries

if TYPE_CHECKING:
    from jobdb.registry import Registry

_STATUS_ORDER = [JobStatus.RUNNING, JobStatus.PENDING, JobStatus.ERROR, JobStatus.COMPLETED, JobStatus.CANCELLED]
_KEY_HELP = "↑↓ select · Enter open · f status · / agent · q quit"
_ANSWER_KEY_HELP = "a allow · d deny · Enter open · f status · / agent · q quit"
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
    "a": "allow", "d": "deny",
    "q": "quit", "\x03": "quit", "\x04": "quit",
}  # fmt: skip
_LATEST_EVENTS = 100
_MAX_QUESTIONS = 5


class _JobDetail(NamedTuple):
    """The opened job, its latest events and its open questions."""

    job: Job
    events: list[Event]
    questions: list[Question]


class _Answer(NamedTuple):
    """An answer to a question, which the user has to confirm."""

    question: Question
    answer: str


class View:
    """The state of the live view: ``refresh`` reads the registry, ``handle_keys`` changes the state, ``draw`` draws it.

    Attributes:
        size: the terminal's size; the caller keeps it up to date.
        agent: only jobs whose agent's name contains this are shown.
        status: the status of the jobs that are shown.
        opened_job_id: the job that is shown in detail, or None.
        filter_active: keys are input for ``agent``.
        quit_requested: the user wants to quit.
        dirty: keys were pressed since the last ``refresh``.
    """

    def __init__(self, size: ConsoleDimensions, *, agent: str = "") -> None:
        self.size = size
        self.agent = agent
        self.status = JobStatus.RUNNING
        self.opened_job_id: str | None = None
        self.filter_active = False
        self.quit_requested = False
        self.dirty = True
        self._selected_row = 0
        self._selected: str | None = None
        self._snapshot: Snapshot | None = None
        self._initial_refusals: dict[Verdict, int] | None = None
        self._detail: _JobDetail | None = None
        self._scroll = 0
        self._proposed: _Answer | None = None
        self._is_proposal_shown = False
        self._confirmed: _Answer | None = None
        self._notice = ""

    # -- reading

    def refresh(self, registry: Registry) -> None:
        """Read the current state. The selected job stays selected wherever it has moved to."""
        self._is_proposal_shown = True
        current = snapshot(registry, status=self.status, agent=self.agent or None)
        self._snapshot = current
        if self._initial_refusals is None:
            self._initial_refusals = current.verdicts
        rows = {job.job_id: row for row, job in enumerate(current.jobs)}
        self._select(rows.get(self._selected or "", self._selected_row))
        self._detail = None
        if self.opened_job_id is not None:
            try:
                job = registry.get(self.opened_job_id)
                events = registry.events(self.opened_job_id, after=max(0, job.last_seq - _LATEST_EVENTS))
                asked = registry.questions(job_id=job.job_id, limit=_MAX_QUESTIONS)
                self._detail = _JobDetail(job, events, asked)
            except UnknownJob:
                self.opened_job_id = None
        self.dirty = False

    def _select(self, row: int) -> None:
        jobs = self._snapshot.jobs if self._snapshot else ()
        self._selected_row = max(0, min(row, len(jobs) - 1))
        self._selected = jobs[self._selected_row].job_id if jobs else None

    # -- answering

    def send_answer(self, registry: Registry, *, by: str) -> None:
        """Give the answer that the user has confirmed, if there is one; what is wrong with it becomes a notice."""
        confirmed, self._confirmed = self._confirmed, None
        if confirmed is None:
            return
        question, answer = confirmed
        try:
            registry.answer(question.job_id, answer, key=question.key, by=by)
        except JobdbError as error:
            self._notice = error.for_command_line()
        else:
            self._notice = f"answered question {question.key} of job {question.job_id} with {answer}"

    def _propose(self, answer: str) -> None:
        """Ask the user to confirm an answer to the only open question of the selected or opened job."""
        job_id: str | None = self._selected
        questions: tuple[Question, ...] = ()
        if self._detail is not None:
            job_id, questions = self._detail.job.job_id, tuple(self._detail.questions)
        elif self._snapshot is not None:
            questions = next((job.questions for job in self._snapshot.jobs if job.job_id == job_id), ())
        if len(questions) == 1 and answer in questions[0].choices:
            self._proposed, self._is_proposal_shown = _Answer(questions[0], answer), False
        elif len(questions) == 1:
            choices = ", ".join(questions[0].choices) or "any text"
            self._notice = f"the answer is {choices}: jobdb answer {job_id}/{questions[0].key} ANSWER"
        elif questions:
            self._notice = f"job {job_id} has several open questions: jobdb answer {job_id}/KEY ANSWER"
        else:
            self._notice = "no open question is selected"

    # -- keys

    def handle_keys(self, typed: str) -> None:
        """React to what was typed: one key, or several that arrived together."""
        self.dirty = self.dirty or bool(typed)
        if typed:
            self._notice = ""
        for key in _KEY_PATTERN.findall(typed):
            if self._proposed is not None:
                self._confirm(key)
            elif self.filter_active:
                self._edit_filter(key)
            elif key in _KEY_NAMES:
                self._apply_key(_KEY_NAMES[key])

    def _confirm(self, key: str) -> None:
        """Only y confirms, and only what has been shown before, which a pasted "okay" has not; other keys drop it."""
        proposed, self._proposed = self._proposed, None
        if key == "y" and self._is_proposal_shown:
            self._confirmed = proposed
        elif _KEY_NAMES.get(key) == "quit":
            self.quit_requested = True

    def _apply_key(self, key: str) -> None:
        page = self._event_rows() if self.opened_job_id is not None else self._job_rows()
        steps = {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -(10**9), "end": 10**9}
        if key == "quit":
            self.quit_requested = True
        elif key == "back":
            self.opened_job_id, self._detail = None, None
        elif key in steps and self.opened_job_id is not None:
            self._scroll = max(0, min(self._visible_scroll() - steps[key], self._max_scroll()))
        elif key in steps:
            self._select(self._selected_row + steps[key])
        elif key in ("allow", "deny"):
            self._propose(key)
        elif self.opened_job_id is not None:
            return
        elif key == "enter":
            self.opened_job_id, self._scroll = self._selected, 0
        elif key == "status":
            self.status = _STATUS_ORDER[(_STATUS_ORDER.index(self.status) + 1) % len(_STATUS_ORDER)]
            self._selected_row, self._selected = 0, None
        elif key == "agent":
            self.filter_active, self.agent = True, ""

    def _edit_filter(self, key: str) -> None:
        if key in ("\r", "\n", _ESCAPE):
            self.filter_active = False
        elif key in ("\x7f", "\b"):
            self.agent = self.agent[:-1]
        elif key == "\x03":
            self.quit_requested = True
        elif key.isprintable():
            self.agent += key

    # -- drawing

    def draw(self) -> RenderableType:
        """Return the whole screen; changes nothing."""
        assert self._snapshot is not None
        if self._detail is not None:
            return self._draw_detail(self._detail)
        return self._draw_jobs(self._snapshot)

    def _job_rows(self) -> int:
        """Return how many rows of jobs fit on the screen."""
        return max(3, self.size.height - 4 - (self._refusal_rows(self._snapshot) if self._snapshot else 0))

    def _event_rows(self) -> int:
        """Return how many rows of events fit on the screen of the opened job."""
        return max(3, self.size.height - 11 - (len(self._detail.questions) if self._detail else 0))

    def _max_scroll(self) -> int:
        """Return how many of the opened job's latest events can be scrolled out at the bottom."""
        return max(0, len(self._detail.events) - self._event_rows()) if self._detail else _LATEST_EVENTS

    def _visible_scroll(self) -> int:
        """Return the scroll position within the current limit: the screen may have grown since it was set."""
        return max(0, min(self._scroll, self._max_scroll()))

    def _draw_jobs(self, now: Snapshot) -> RenderableType:
        refusals = self._refusals(now)
        page = self._job_rows()
        first = max(0, min(self._selected_row - page // 2, len(now.jobs) - page))
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0), expand=True)
        wide = self.size.width >= 110
        for name, width in (("JOB", 24 if wide else 13), ("AGENT", 20 if wide else 12), ("ATT", 3)):
            table.add_column(name, no_wrap=True, width=width, overflow="ellipsis")
        tried = any(job.strikes for job in now.jobs)
        if tried:
            table.add_column("TRIES", no_wrap=True, width=5, overflow="ellipsis")
        for name, width in (("TIME", 9), ("IDLE", 9), ("LEASE", 7)):
            table.add_column(name, no_wrap=True, width=width, overflow="ellipsis")
        table.add_column("LAST", no_wrap=True, overflow="ellipsis", ratio=1)
        for row, job in enumerate(now.jobs[first : first + page], start=first):
            selected = row == self._selected_row
            table.add_row(*_cells(job, selected=selected, tried=tried), style="reverse" if selected else "")
        lines: list[RenderableType] = [self._counts(now), _workers(now), table]
        if not now.jobs:
            lines.append(
                Text(
                    f"no {self.status} job"
                    + (f" of an agent whose name contains {self.agent!r}" if self.agent else ""),
                    "dim",
                )
            )
        drawn = min(len(now.jobs), page) or 1
        lines += [Text("")] * max(0, page - drawn)
        lines += refusals
        more = f"{first + 1}–{min(first + page, len(now.jobs))} of {len(now.jobs)} · " if now.jobs else ""
        asks = any(job.questions for job in now.jobs if job.job_id == self._selected)
        keys = _ANSWER_KEY_HELP if asks else _KEY_HELP
        prompt = f"agent: {sanitize(self.agent)}▏ Enter" if self.filter_active else more + self._filter() + keys
        lines.append(self._foot(prompt))
        return Group(*lines)

    def _foot(self, keys: str) -> Text:
        """Return the last line: the answer to confirm, else a notice, else the keys."""
        if self._proposed is not None:
            question, answer = self._proposed
            text = f"{answer}? y: yes, other keys: no · {question.job_id}/{question.key}: {question.text}"
            return Text(sanitize(text), PERMISSION_STYLE, no_wrap=True, overflow="ellipsis")
        if self._notice:
            return Text(sanitize(self._notice), "yellow", no_wrap=True, overflow="ellipsis")
        return Text(keys, "dim", no_wrap=True, overflow="ellipsis")

    def _filter(self) -> str:
        return f"agent: {sanitize(self.agent)} · " if self.agent else ""

    def _counts(self, now: Snapshot) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        for status in _STATUS_ORDER:
            style = STATUS_STYLES[status] if now.counts[status] else "dim"
            style += " underline" if status is self.status else ""
            text.append(f"{now.counts[status]} {status}", style)
            text.append("  ")
        asking = sum(job.awaits_permission for job in now.jobs)
        if asking:
            text.append(f"{asking} ask  ", PERMISSION_STYLE)
        asked_here = sum(len(job.questions) for job in now.jobs)
        if now.open_questions > asked_here:
            text.append(f"{now.open_questions - asked_here} questions elsewhere  ", PERMISSION_STYLE)
        if now.outbox:
            text.append(f"{now.outbox} to deliver", "blue")
        return text

    def _refusals(self, now: Snapshot) -> list[Text]:
        """Return the number of refused events by verdict, highlighted where it has grown, and the latest refusals."""
        if not now.verdicts:
            return []
        text = Text("refused: ", "red", no_wrap=True, overflow="ellipsis")
        for verdict, count in now.verdicts.items():
            added = count - (self._initial_refusals or {}).get(verdict, 0)
            text.append(
                f"{count} {verdict}" + (f" (+{added})" if added else ""), "bold red reverse" if added else "red"
            )
            text.append("  ")
        return [text, *(self._refusal_line(now, index) for index in range(self._refusal_rows(now) - 1))]

    @staticmethod
    def _refusal_rows(now: Snapshot) -> int:
        return 1 + min(3, len(now.refusals)) if now.verdicts else 0

    @staticmethod
    def _refusal_line(now: Snapshot, index: int) -> Text:
        refusal = now.refusals[index]
        ago = format_duration((now.taken_ms - refusal.recorded_at.timestamp() * 1000) / 1000)
        line = f"{refusal.verdict} {ago} ago: job {refusal.job_id} seq {refusal.seq}: {refusal.reason}"
        return Text(sanitize(line), "red", no_wrap=True, overflow="ellipsis")

    def _draw_detail(self, detail: _JobDetail) -> RenderableType:
        job, events, questions = detail
        head = Text.assemble(
            (sanitize(job.job_id), "bold"),
            "  ",
            (job.status.value, STATUS_STYLES[job.status]),
            f"  {sanitize(job.agent)}",
        )
        head.append(f"  attempt {job.attempt}" + (f"  {sanitize(job.worker)}" if job.worker else ""))
        if job.strikes:
            head.append(f"  {format_tries(job.strikes, job.max_attempts)} tries used up", "yellow")
        prompt = Text(sanitize(job.prompt, keep="\n"), overflow="ellipsis")
        prompt = Text("\n").join(prompt.split("\n", allow_blank=True)[:4])
        table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
        for name, width in (("SEQ", 6), ("AT", 20), ("EVENT", 19)):
            table.add_column(name, no_wrap=True, width=width)
        table.add_column("DETAIL", no_wrap=True, overflow="ellipsis", ratio=1)
        end = len(events) - self._visible_scroll()
        for event in events[max(0, end - self._event_rows()) : end]:
            table.add_row(str(event.seq), sanitize(event.timestamp), event.event.value, Text(sanitize(event.detail)))
        asked = [_question_line(question) for question in questions]
        foot = self._foot("↑↓ older, newer · " + ("a allow · d deny · " if questions else "") + "Esc back · q quit")
        return Group(head, *asked, Text(""), prompt, Text(""), table, Text(""), foot)


def _question_line(question: Question) -> Text:
    choices = f" ({', '.join(question.choices)})" if question.choices else ""
    line = sanitize(f"asks {question.key}: {question.text}{choices}")
    return Text(line, PERMISSION_STYLE, no_wrap=True, overflow="ellipsis")


def _workers(now: Snapshot) -> Text:
    """Return who works, each with its busy slots; a worker that was not heard of for longer than its lease in red."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for record in now.workers:
        info = record.info
        silent_sec = now.taken_ms / 1000 - record.heartbeat_at.timestamp()
        silence, style = (
            (f" silent {format_duration(silent_sec)}", "red") if silent_sec > info.lease_sec else ("", "dim")
        )
        text.append(f"{sanitize(info.name)} {len(record.running)}/{info.slots}{silence}  ", style)
    return text


def _cells(job: WatchedJob, *, selected: bool, tried: bool) -> list[Text]:
    """Return a job's row; ``tried``: with the column of the tries."""
    lease = (
        ""
        if job.lease_left_sec is None
        else format_duration(job.lease_left_sec)
        if job.lease_left_sec > 0
        else "expired"
    )
    event = "asks" if job.awaits_permission else "answered" if job.is_answered else job.last_event or ""
    if job.delay_sec:
        event = f"ready in {format_duration(job.delay_sec)}"
    said = job.questions[0].text if job.questions else job.detail
    detail = f"{event}: {said}" if said and event else event or said or ""
    idle_limit = job.effective_idle_timeout_sec
    cells = [
        (job.job_id, PERMISSION_STYLE if job.awaits_permission else STATUS_STYLES[job.status]),
        (job.agent, ""),
        (str(job.attempt), ""),
        *([(format_tries(job.strikes, job.max_attempts), "yellow")] if tried else []),
        (_format_with_limit(job.running_sec, job.timeout_sec), _limit_style(job.running_sec, job.timeout_sec)),
        (_format_with_limit(job.idle_sec, idle_limit), _limit_style(job.idle_sec, idle_limit)),
        (lease, "red" if lease == "expired" else ""),
        (detail, PERMISSION_STYLE if job.awaits_permission else ""),
    ]
    return [Text(sanitize(text), "" if selected else style) for text, style in cells]


def _limit_style(seconds: float | None, limit: int) -> str:
    """Return yellow from four fifths of a limit on, red from the whole of it."""
    used = seconds / limit if seconds is not None and limit else 0.0
    return "bold red" if used >= 1 else "yellow" if used >= 0.8 else ""


def _format_with_limit(seconds: float | None, limit: int) -> str:
    """Return a time and its limit."""
    if seconds is None:
        return ""
    return f"{format_duration(seconds)}/{format_duration(limit)}" if limit else format_duration(seconds)
