"""The verbs of :class:`Registry` for questions: ask, list, answer, and wait for the answer.

Called by applications and by the commands ask, questions, answer and hook, as methods of an open registry; they check
their arguments and call the engine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..core import arguments
from ..core.protocol import MAX_DETAIL_CHARS
from ..errors import AttemptRequired, IllegalTransition, InvalidInput, StaleAttempt, TimedOut
from ..model import JobStatus
from .base import RegistryBase
from .waiting import WaitForChange, waits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model import Question
    from .waiting import Waiting

ALLOW_OR_DENY = ("allow", "deny")
MAX_CHOICES = 64
MAX_ANSWER_CHARS = 16_384
"""The maximum length of an answer, in code points: the event that acknowledges it contains it, escaped."""
_LONGEST_WAIT_SEC = 60.0


class QuestionVerbs(RegistryBase):
    """The verbs for questions."""

    def ask(
        self,
        job_id: str,
        text: str,
        *,
        key: str | None = None,
        choices: Iterable[str] = ALLOW_OR_DENY,
        attempt: int | None = None,
    ) -> Question:
        """Ask a question: record it, and publish ``permission_required`` with it, in one transaction.

        The same key of the same job is the same question: asked again, also by a later attempt, it is returned as it
        is, with its answer if there is one.

        Args:
            job_id: the id of the job.
            text: the question, up to 65,536 characters.
            key: what the question is known by, up to 128 characters; made from the event's seq if None.
            choices: the possible answers; empty if any text is one.
            attempt: the attempt of the claim, which a job that is held under a lease demands.

        Returns:
            The question; :meth:`wait_for_answer` waits for its answer.

        Raises:
            UnknownJob: there is no job with that id.
            IllegalTransition: the job has ended.
            StaleAttempt: the claim was taken over or released.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> claim = registry.claim(worker="host1:4711")
            >>> question = registry.ask("sort-1", "May I delete build/?", key="delete-build", attempt=1)
            >>> question.is_open
            True
        """
        found = [
            arguments.text("a choice", choice, most=256) for choice in arguments.items("choices", choices, of="text")
        ]
        if len(found) > MAX_CHOICES or len(set(found)) != len(found):
            raise InvalidInput(f"choices must be at most {MAX_CHOICES} different answers")
        return self.engine.ask(
            arguments.job_id(job_id),
            arguments.text("text", text, most=MAX_DETAIL_CHARS),
            key=arguments.optional_text("key", key, most=128),
            choices=found,
            attempt=None if attempt is None else arguments.attempt(attempt),
        )

    def questions(
        self, *, job_id: str | None = None, open_only: bool = True, after: int = 0, limit: int = 100
    ) -> list[Question]:
        """Return a page of questions, the oldest first.

        Args:
            job_id: only those of this job.
            open_only: only those that can be answered; False for all.
            after: only those with a greater ``number``.
            limit: the maximum number of questions, 1 to 10,000.

        Raises:
            UnknownJob: there is no job with that id.

        Example:
            >>> registry.questions()
            []
        """
        return self.engine.questions(
            job_id=None if job_id is None else arguments.job_id(job_id),
            open_only=arguments.flag("open_only", open_only),
            after=arguments.integer("after", after, least=0, most=2**53),
            limit=arguments.page_limit(limit),
        )

    def answer(self, job_id: str, answer: str, *, by: str, key: str | None = None, message: str = "") -> Question:
        """Answer a question. The first answer is final.

        Args:
            job_id: the id of the job.
            answer: "allow" or "deny", or one of the question's choices, or any text if it has none, up to
                16,384 characters.
            by: who answers, up to 256 characters.
            key: the question's key; may be None if the job has one open question.
            message: what the agent is told besides.

        Raises:
            InvalidInput: that is no answer to this question, or ``key`` is None and there are several.
            UnknownQuestion: the job has no such question.
            AlreadyAnswered: somebody has answered; the message says who, when and what.
            IllegalTransition: the job has ended.
            StaleAttempt: the question is of an earlier attempt, and the current one has not asked it.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> question = registry.ask("sort-1", "May I delete build/?")
            >>> registry.answer("sort-1", "deny", by="ann", message="keep it").answer
            'deny'
        """
        return self.engine.answer(
            arguments.job_id(job_id),
            arguments.text("answer", answer, most=MAX_ANSWER_CHARS),
            key=arguments.optional_text("key", key, most=128),
            by=arguments.text("by", by, most=256),
            message=arguments.text("message", message, most=MAX_DETAIL_CHARS, least=0),
        )

    @waits
    def wait_for_answer(
        self, job_id: str, key: str, *, attempt: int | None = None, timeout_sec: float | None = None
    ) -> Waiting[Question]:
        """Wait until a question is answered; acknowledge the answer with a ``progress`` event.

        Args:
            job_id: the id of the job.
            key: the question's key.
            attempt: the attempt of the claim, which a job that is held under a lease demands.
            timeout_sec: how long to wait, in seconds; None: without limit.

        Returns:
            The answered question.

        Raises:
            UnknownQuestion: the job has no such question.
            TimedOut: nobody answered in time; the question stays open.
            IllegalTransition: the job has ended, so that nobody can answer any more.
            StaleAttempt: the claim was taken over or released.
            AttemptRequired: the job is held under a lease, and ``attempt`` is None.

        Example:
            >>> job = registry.register(agent="codex", prompt="sort", job_id="sort-1")
            >>> question = registry.ask("sort-1", "May I delete build/?", key="delete-build")
            >>> question = registry.answer("sort-1", "allow", by="ann")
            >>> registry.wait_for_answer("sort-1", "delete-build").is_allowed
            True
        """
        job_id = arguments.job_id(job_id)
        key = arguments.text("key", key, most=128)
        attempt = None if attempt is None else arguments.attempt(attempt)
        limit = arguments.limit_sec("timeout_sec", timeout_sec)
        deadline = None if limit is None else time.monotonic() + limit
        while True:
            seen = self.store.data_version()
            question = self.engine.question(job_id, key)
            if not question.is_open:
                return self.engine.acknowledge_answer(job_id, key, attempt=attempt)
            self._require_waiting(question, attempt)
            left = _LONGEST_WAIT_SEC if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    f"question {key} of job {job_id} is not answered",
                    advice="it stays open; wait again",
                    command=f"it stays open; 'jobdb answer {job_id}/{key} allow' answers it",
                )
            yield WaitForChange(seen, min(left, _LONGEST_WAIT_SEC))

    def _require_waiting(self, question: Question, attempt: int | None) -> None:
        """Refuse to wait for an answer that cannot come.

        Raises:
            IllegalTransition: the job has ended.
            StaleAttempt: the claim was taken over or released.
            AttemptRequired: the job is held under a lease, and the caller names no attempt.
        """
        job = self.engine.get(question.job_id)
        if job.terminal:
            raise IllegalTransition(
                f"job {job.job_id} has ended as {job.status}; its question {question.key} cannot be answered",
                advice="stop this work",
            )
        if attempt is None and job.lease_expires_at is not None:
            raise AttemptRequired(
                f"cannot wait for an answer of job {job.job_id} without an attempt: {job.worker} holds it under a "
                f"lease as attempt {job.attempt}",
                advice=f"if you are that worker, pass attempt={job.attempt}",
                command=f"if you are that worker, set JOBDB_ATTEMPT={job.attempt}",
            )
        if attempt is not None and (attempt != job.attempt or job.status is not JobStatus.RUNNING):
            raise StaleAttempt(
                f"attempt {attempt} of job {job.job_id} is over: the job is {job.status} at attempt {job.attempt}",
                advice="stop this work",
            )
