"""The commands for questions: ask, questions, answer.

Called by the ``jobdb`` group (``commands.py``), when one of them is run; calls the registry, and ``question_display``,
which draws questions for people.

An agent's script goes on only after an answer that allows: every other end of ``ask``, and every failure, is an exit
code other than 0.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from jobdb.errors import AlreadyAnswered, IllegalTransition, InvalidInput, StaleAttempt, TimedOut

from . import output
from .answerer import user_at_host
from .claimed_job import resolve_attempt, resolve_job
from .completion import complete_job_ids
from .context import open_registry
from .messages import print_error, print_hint, print_note
from .parameters import AsJson, Attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobdb.model import Question
    from jobdb.registry import Registry

ALLOWED, DENIED, UNANSWERED, ENDED = 0, 1, 3, 6
_ALLOW, _DENY = "allow", "deny"
_TIMEOUT = "timeout"
_PAGE = 1000
_LONGEST_WAIT_SEC = 60.0


def ask(
    ctx: typer.Context,
    job: Annotated[
        str,
        typer.Argument(metavar="JOB", help="The job's id; -: $JOBDB_JOB_ID.", autocompletion=complete_job_ids),
    ],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The question.")],
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="What the question is known by: the same key of the same job is the same question, and is asked "
            "once. Default: a new question.",
            show_default=False,
        ),
    ] = None,
    choices: Annotated[
        str,
        typer.Option("--choices", metavar="LIST", help="The possible answers, with commas between them; '': any text."),
    ] = "allow,deny",
    wait_sec: Annotated[
        float | None,
        typer.Option("--wait", metavar="SEC", help="Wait for the answer, for SEC seconds at most; inf: without limit."),
    ] = None,
    default: Annotated[
        str | None,
        typer.Option(
            "--default",
            metavar="deny",
            help="With --wait: answer the question with 'deny' when the time is over. There is no default that allows.",
        ),
    ] = None,
    attempt: Attempt = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question about a job, and wait for the answer.

    Prints the answer; --json prints the question's record. Exit code 0: allowed. 1: denied. 3: not answered, also
    without --wait; the question stays open, and the same command with the same --key asks for its answer again. 6: the
    job has ended. Whatever else goes wrong is another code than 0. If 'allow' is among the choices, only that answer
    allows; of other choices and of free text, every answer but 'deny' does.

    'jobdb answer' answers, and so do the keys a and d of 'jobdb watch'; the first answer is final.

    \b
    Examples:
      jobdb ask - "May I delete build/?" --key delete-build --wait 600 --default deny && rm -r build
      branch=$(jobdb ask - "Which branch?" --choices main,develop --wait 600)
    """
    from .inputs import check_time_limit

    wait_sec = check_time_limit(wait_sec, option="--wait")
    choice_list = _parse_choices(choices)
    if default is not None:
        _check_default(default, choice_list, wait_sec)
    job = resolve_job(None if job == "-" else job)
    attempt = resolve_attempt(job, attempt)
    with open_registry(ctx) as registry:
        try:
            question = registry.ask(job, text, key=key, choices=choice_list, attempt=attempt)
            answered = None
            if wait_sec is not None or not question.is_open:
                answered = _wait(registry, question, attempt, wait_sec or 0.0, deny=default is not None)
        except (IllegalTransition, StaleAttempt) as error:
            if not registry.get(job).terminal:
                raise
            print_error(error.for_command_line())
            raise typer.Exit(ENDED) from None
    if as_json:
        output.print_json((answered or question).as_dict())
    elif answered is not None:
        output.print_line(answered.answer or "")
    if answered is None:
        waited = "" if wait_sec is None else f" after {wait_sec:g} s"
        print_note(
            f"jobdb: question {question.key} of job {job} is not answered{waited}; "
            f"'jobdb answer {job}/{question.key} ANSWER' answers it"
        )
        raise typer.Exit(UNANSWERED)
    if answered.message:
        print_note(f"{answered.answered_by}: {answered.message}")
    raise typer.Exit(ALLOWED if is_allowed(answered) else DENIED)


def is_allowed(question: Question) -> bool:
    """Tell whether an answer lets the agent go on: only "allow" where that is a choice, else all but "deny"."""
    if question.answer is None or question.answer == _DENY:
        return False
    return question.answer == _ALLOW or _ALLOW not in question.choices


def _parse_choices(text: str) -> list[str]:
    if not text:
        return []
    found = [choice.strip() for choice in text.split(",")]
    if not all(found):
        raise InvalidInput(f"--choices is {text!r:.60}; give the answers with single commas between them")
    return found


def _check_default(default: str, choices: list[str], wait_sec: float | None) -> None:
    if default != _DENY:
        raise InvalidInput(f"--default is {default!r:.40}; the only default is 'deny': nobody has allowed anything")
    if choices and _DENY not in choices:
        raise InvalidInput("--default deny needs 'deny' among the --choices")
    if wait_sec is None:
        raise InvalidInput("--default is the answer when the time of --wait is over; give --wait too")


def _wait(
    registry: Registry, question: Question, attempt: int | None, wait_sec: float, *, deny: bool
) -> Question | None:
    """Wait for the answer; when the time is over, deny, or return None."""
    try:
        return registry.wait_for_answer(question.job_id, question.key, attempt=attempt, timeout_sec=wait_sec)
    except TimedOut:
        if not deny or (question.choices and _DENY not in question.choices):
            return None
    with suppress(AlreadyAnswered):  # a person was faster: that answer counts
        registry.answer(question.job_id, _DENY, key=question.key, by=_TIMEOUT)
    return registry.wait_for_answer(question.job_id, question.key, attempt=attempt, timeout_sec=0)


def questions(
    ctx: typer.Context,
    job: Annotated[
        str | None,
        typer.Argument(metavar="[JOB]", help="The job; all jobs by default.", autocompletion=complete_job_ids),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show further questions as they are asked, until interrupted.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Also the answered ones; with --follow, also answers as they are given.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the questions that wait for an answer, the oldest first.

    On a terminal: a table. In a pipe: one line per question with tab-separated job, key, attempt, time, choices with
    commas between them, answer, who answered, and the question; '-' stands for a missing value. With --json: one
    object per line.

    \b
    Examples:
      jobdb questions
      jobdb questions --follow --json | jq -r .text
    """
    with open_registry(ctx) as registry:
        if follow:
            for question in _follow(registry, job, every=every):
                _print(question, as_json=as_json)
                output.flush()
            return
        found = _all_questions(registry, job, open_only=not every)
        if as_json or not output.on_terminal():
            for question in found:
                _print(question, as_json=as_json)
            return
        shown = list(found)
    if not shown:
        print_hint("no questions" if every else "no open questions; --all shows the answered ones")
        return
    from .question_display import draw_questions

    draw_questions(ctx, shown, with_answers=every)


def _all_questions(registry: Registry, job: str | None, *, open_only: bool, after: int = 0) -> Iterator[Question]:
    while True:
        page = registry.questions(job_id=job, open_only=open_only, after=after, limit=_PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].number


def _follow(registry: Registry, job: str | None, *, every: bool) -> Iterator[Question]:
    """Yield the questions that there are, then each that is asked, and with ``every`` each that is answered."""
    store = registry.store
    open_before: dict[int, Question] = {}
    newest = 0
    while True:
        seen = store.data_version()
        open_now = {question.number: question for question in _all_questions(registry, job, open_only=True)}
        if every:
            for number, question in open_before.items():
                if number not in open_now:
                    yield from _answered(registry, question)
            for question in list(_all_questions(registry, job, open_only=False, after=newest)):
                newest = question.number
                if question.number not in open_now:
                    yield question
        for number, question in open_now.items():
            if number not in open_before or open_before[number].seq != question.seq:
                yield question
        open_before = open_now
        store.wait_for_change(seen, _LONGEST_WAIT_SEC)


def _answered(registry: Registry, question: Question) -> Iterator[Question]:
    """Yield a question that was open, if it has been answered; it may have been pruned meanwhile."""
    from jobdb.errors import UnknownJob

    try:
        found = registry.questions(job_id=question.job_id, open_only=False, after=question.number - 1, limit=1)
    except UnknownJob:
        return
    yield from (now for now in found if now.number == question.number and not now.is_open)


def _print(question: Question, *, as_json: bool) -> None:
    if as_json:
        output.print_json(question.as_dict())
        return
    output.print_tsv(
        question.job_id,
        question.key,
        question.attempt,
        f"{question.asked_at:%Y-%m-%dT%H:%M:%SZ}",
        ",".join(question.choices) or None,
        question.answer,
        question.answered_by,
        question.text,
    )


def answer(
    ctx: typer.Context,
    question: Annotated[
        str,
        typer.Argument(
            metavar="JOB[/KEY]",
            help="The job, and the question's key if the job has several open questions.",
            autocompletion=complete_job_ids,
        ),
    ],
    text: Annotated[
        str, typer.Argument(metavar="ANSWER", help="allow or deny, another choice of the question, or free text.")
    ],
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", help="What the agent is told besides.")
    ] = "",
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="NAME", help="Who answers. Default: USER@HOST.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question of an agent; the first answer is final.

    Refused with exit code 1: the question has been answered (the message says by whom), its job has ended, or it
    belongs to an earlier attempt and the current one has not asked it.

    \b
    Examples:
      jobdb answer 0f3a9c2d7b11 allow
      jobdb answer 0f3a9c2d7b11/delete-build deny --message "keep it until Friday"
    """
    job, _, key = question.partition("/")
    with open_registry(ctx) as registry:
        answered = registry.answer(
            job, text, key=key if "/" in question else None, by=by or user_at_host(), message=message
        )
    if as_json:
        output.print_json(answered.as_dict())
    else:
        print_note(f"answered question {answered.key} of job {answered.job_id} with {answered.answer!r:.60}")
