"""The verbs for questions: ask, answer, list, and the acknowledgement of an answer by the worker.

Called by the registry's ``questions.py``, through the engine. Calls the store, never a driver.

A question and its ``permission_required`` event are one transaction. The first answer is final. An answer is no event
of the agent: it is recorded in the question's row, and the worker acknowledges it with a ``progress`` event.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ... import model
from ...errors import AlreadyAnswered, IllegalTransition, InvalidInput, StaleAttempt, UnknownQuestion
from ...model import EventKind, JobStatus, from_ms
from ..verbs import verb
from .claims import require_claim
from .lookups import require_job, require_job_key
from .publish_batch import PublishBatch
from .statements import QUESTIONS
from .verb_group import VerbGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...core.protocol import WireEvent
    from ...model import Question
    from ..store import Transaction
    from .lookups import JobState


_MAX_NAMED = 10


class _QuestionRow(NamedTuple):
    """A row of the statements that read questions."""

    job_id: str
    number: int
    key: str
    attempt: int
    text: str
    choices: str
    seq: int
    asked_ms: int
    answer: str | None
    message: str | None
    answered_by: str | None
    answered_ms: int | None
    acknowledged: int | None

    def question(self) -> Question:
        asked_at = from_ms(self.asked_ms)
        assert asked_at is not None
        return model.Question(
            job_id=self.job_id,
            key=self.key,
            attempt=self.attempt,
            text=self.text,
            choices=tuple(json.loads(self.choices)),
            seq=self.seq,
            asked_at=asked_at,
            answer=self.answer,
            message=self.message or "",
            answered_by=self.answered_by,
            answered_at=from_ms(self.answered_ms),
            number=self.number,
        )


class QuestionVerbs(VerbGroup):
    """The verbs for questions."""

    @verb
    def ask(self, job_id: str, text: str, *, key: str | None, choices: Sequence[str], attempt: int | None) -> Question:
        """Record a question and publish ``permission_required``; return the known question if the key is known.

        An open question that a later attempt asks again is published again: it belongs to that attempt then.
        """
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            state = require_job(tx, job_id)
            known = None if key is None else _find(tx, state.job, key)
            if known is not None and (known.answer is not None or known.attempt == (attempt or state.attempt)):
                _require_attempt(tx, state, job_id, attempt)
                return known.question()
            key = key or _new_key(tx, state)
            if known is not None:  # the event says what is in the record, whatever the later attempt has called it
                text, choices = known.text, json.loads(known.choices)
            event = self._ask_event(tx, job_id, text, key=key, choices=choices, attempt=attempt)
            row = {"attempt": event.attempt or 0, "seq": event.seq, "now": tx.now_ms}
            if known is not None:
                tx.run(QUESTIONS.ask_again, question=known.number, **row)
            else:
                tx.run(QUESTIONS.insert_question, job=state.job, key=key, text=text, choices=_dump(choices), **row)
            asked = _find(tx, state.job, key)
            assert asked is not None
        return asked.question()

    def _ask_event(
        self, tx: Transaction, job_id: str, text: str, *, key: str, choices: Sequence[str], attempt: int | None
    ) -> WireEvent:
        facts = {"key": key, "choices": list(choices)}
        event = model.NewEvent(
            job_id=job_id,
            event=EventKind.PERMISSION_REQUIRED,
            detail=text,
            data={"question": facts},
            attempt=attempt,
        )
        (wire,) = PublishBatch(tx, self.vault).publish([event])
        return wire

    @verb
    def answer(self, job_id: str, answer: str, *, key: str | None, by: str, message: str) -> Question:
        """Record the first answer to a question."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            state = require_job(tx, job_id)
            found = _find(tx, state.job, key) if key is not None else _only_open(tx, state, job_id)
            if found is None:
                raise UnknownQuestion(job_id, key or "")
            _check_answerable(found, state)
            choices = json.loads(found.choices)
            if choices and answer not in choices:
                raise InvalidInput(
                    f"{answer!r:.60} is no answer to question {found.key} of job {job_id}",
                    advice=f"choose one of: {', '.join(choices)}",
                )
            tx.run(
                QUESTIONS.answer_question, question=found.number, answer=answer, message=message, by=by, now=tx.now_ms
            )
            answered = _find(tx, state.job, found.key)
            assert answered is not None
        return answered.question()

    @verb
    def acknowledge_answer(self, job_id: str, key: str, *, attempt: int | None) -> Question:
        """Publish ``progress`` with the answer, once per question: the worker has it and goes on."""
        with self.store.write() as tx:
            tx.lock_jobs([job_id])
            state = require_job(tx, job_id)
            found = _find(tx, state.job, key)
            if found is None:
                raise UnknownQuestion(job_id, key)
            _require_attempt(tx, state, job_id, attempt)
            if found.answer is not None and found.acknowledged is None:
                facts = {"key": key, "answer": found.answer, "by": found.answered_by}
                event = model.NewEvent(
                    job_id=job_id,
                    event=EventKind.PROGRESS,
                    detail=f"answered: {found.answer}"[:1000],
                    data={"answer": facts},
                    attempt=attempt,
                )
                (wire,) = PublishBatch(tx, self.vault).publish([event])
                tx.run(QUESTIONS.acknowledge_answer, question=found.number, seq=wire.seq)
        return found.question()

    @verb
    def question(self, job_id: str, key: str) -> Question:
        """Return one question."""
        with self.store.read() as tx:
            found = _find(tx, require_job_key(tx, job_id), key)
        if found is None:
            raise UnknownQuestion(job_id, key)
        return found.question()

    @verb
    def silent_sec(self, job_id: str) -> float | None:
        """Return for how long a job has been silent, in seconds: since its claim, last event or last answer.

        None while it waits for a person, as in the statement ``overdue_jobs``, and if there is no such job.
        """
        with self.store.read() as tx:
            row = tx.one(QUESTIONS.silence, job_id=job_id)
            if row is None or row[0]:
                return None
            return max(0, tx.now_ms - int(row[1])) / 1000

    @verb
    def questions(self, *, job_id: str | None, open_only: bool, after: int, limit: int) -> list[Question]:
        """Return a page of questions, the oldest first: those of a job, the open ones, or all."""
        with self.store.read() as tx:
            if job_id is not None:
                job = require_job_key(tx, job_id)
                if open_only:
                    rows = tx.all(QUESTIONS.open_questions_of_job, job=job, after=after, limit=limit)
                else:
                    rows = tx.all(QUESTIONS.questions_of_job, job=job, after=after, limit=limit)
            elif open_only:
                rows = tx.all(QUESTIONS.open_questions, after=after, limit=limit)
            else:
                rows = tx.all(QUESTIONS.all_questions, after=after, limit=limit)
        return [_QuestionRow._make(row).question() for row in rows]


def _find(tx: Transaction, job: int, key: str) -> _QuestionRow | None:
    row = tx.one(QUESTIONS.question, job=job, key=key)
    return None if row is None else _QuestionRow._make(row)


def _new_key(tx: Transaction, state: JobState) -> str:
    """Return a key that no question of the job has: the seq of the event that will ask it."""
    key = seq_key = f"q{state.last_seq + 1}"
    number = 1
    while _find(tx, state.job, key) is not None:
        number += 1
        key = f"{seq_key}-{number}"
    return key


def _only_open(tx: Transaction, state: JobState, job_id: str) -> _QuestionRow | None:
    """Return the only open question of a job, else the only unanswered one, else None.

    Raises:
        InvalidInput: there are several.
    """
    rows = tx.all(QUESTIONS.open_questions_of_job, job=state.job, after=0, limit=_MAX_NAMED)
    found = [_QuestionRow._make(row) for row in rows or tx.all(QUESTIONS.unanswered_questions, job=state.job, limit=2)]
    if len(found) > 1:
        keys = ", ".join(question.key for question in found)
        raise InvalidInput(
            f"job {job_id} has several open questions",
            advice=f"give the key of one: {keys}",
            command=f"name one, as {job_id}/KEY; the keys are {keys}",
        )
    return found[0] if found else None


def _require_attempt(tx: Transaction, state: JobState, job_id: str, attempt: int | None) -> None:
    """Refuse an attempt that is not the current claim, and a missing one if the job is held under a lease."""
    if attempt is not None or state.lease_until_ms is not None:
        require_claim(tx, job_id, attempt, "ask about")


def _check_answerable(question: _QuestionRow, state: JobState) -> None:
    """Refuse an answer that can have no effect.

    Raises:
        AlreadyAnswered: somebody was faster.
        IllegalTransition: the job has ended.
        StaleAttempt: a later attempt has not asked this.
    """
    job_id, key = question.job_id, question.key
    if question.answer is not None:
        answered_at = from_ms(question.answered_ms)
        raise AlreadyAnswered(
            f"question {key} of job {job_id} was answered with {question.answer!r:.60} by {question.answered_by} at "
            f"{answered_at:%Y-%m-%dT%H:%M:%SZ}; the first answer is final"
        )
    if JobStatus(state.status).terminal:
        raise IllegalTransition(
            f"job {job_id} has ended as {state.status}; its question {key} cannot be answered",
            advice=f"see registry.get({job_id!r})",
            command=f"see 'jobdb show {job_id}'",
        )
    if question.attempt != state.attempt:
        raise StaleAttempt(
            f"question {key} of job {job_id} belongs to attempt {question.attempt}, and the job is at attempt "
            f"{state.attempt}, which has not asked it",
            advice="wait until it does: it will have the same key",
        )


def _dump(choices: Sequence[str]) -> str:
    return json.dumps(list(choices), ensure_ascii=False)
