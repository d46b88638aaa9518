"""Draws questions for people, and finds the open questions of the jobs that a command shows.

Called by ``ask`` for the ``questions`` command, and by ``jobs`` for list and show; calls the registry to read.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from jobdb.system.durations import format_duration

from .formatting import PERMISSION_STYLE
from .messages import print_hint
from .settings import shell_quote
from .tables import Cell, print_table

if TYPE_CHECKING:
    import typer

    from jobdb.model import Question
    from jobdb.registry import Registry

_PAGE = 1000
MAX_OPEN = 10_000


def draw_questions(ctx: typer.Context, questions: list[Question], *, with_answers: bool) -> None:
    """Draw questions as a table; suggest how to answer the first open one."""
    now = datetime.now(UTC)
    columns = ["JOB", "KEY", "ATT", "AGE", "CHOICES", *(("ANSWER", "BY") if with_answers else ()), "QUESTION"]
    rows: list[list[Cell]] = []
    for question in questions:
        style = PERMISSION_STYLE if question.is_open else "dim"
        row: list[Cell] = [
            question.job_id,
            question.key,
            str(question.attempt),
            format_duration((now - question.asked_at).total_seconds()),
            ", ".join(question.choices) or ("any text", "dim"),
        ]
        if with_answers:
            row += [question.answer or "", question.answered_by or ""]
        rows.append([*row, (question.text, style)])
    print_table(columns, rows, wide="QUESTION")
    first = next((question for question in questions if question.is_open), None)
    if first is not None:
        print_how_to_answer(ctx, first)


def print_how_to_answer(ctx: typer.Context, question: Question) -> None:
    """Suggest the command that answers a question."""
    choice = question.choices[0] if question.choices else "TEXT"
    name = shell_quote(f"{question.job_id}/{question.key}")
    print_hint(f"to answer: jobdb answer {name} {shell_quote(choice)}", ctx)


def open_questions(registry: Registry, job_ids: Collection[str]) -> dict[str, list[Question]]:
    """Return the open questions of some jobs, by job; of the oldest 10,000 open ones."""
    found: dict[str, list[Question]] = {}
    after = 0
    for _page in range(MAX_OPEN // _PAGE):
        page = registry.questions(after=after, limit=_PAGE)
        for question in page:
            if question.job_id in job_ids:
                found.setdefault(question.job_id, []).append(question)
        if len(page) < _PAGE:
            break
        after = page[-1].number
    return found


def describe_question(question: Question, now: datetime) -> str:
    """Return a question in a line: its key, what it asks, the choices, and for how long it has been open."""
    choices = f" ({', '.join(question.choices)})" if question.choices else ""
    age = format_duration((now - question.asked_at).total_seconds())
    return f"{question.key}: {question.text}{choices}, asked {age} ago"
