"""A question that an agent asks, and its answer.

Used by the verbs for questions and by whatever shows them, as a name of ``jobdb.model``; imports only its neighbours
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .times import format_time

ALLOW, DENY = "allow", "deny"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Question:
    """Something that an agent wants answered before it goes on.

    Attributes:
        job_id: the job.
        key: its key; the same key of the same job is the same question.
        attempt: the last attempt that asked it.
        text: the question.
        choices: the possible answers; empty if any text is one.
        seq: the seq of the ``permission_required`` event that asked it last.
        asked_at: when it was asked last.
        answer: the answer, one of ``choices`` if there are any; None while it is open.
        message: what the person added to the answer; empty if nothing.
        answered_by: who answered; None while it is open.
        answered_at: when it was answered; None while it is open.
        number: grows with each question, for paging.
    """

    job_id: str
    key: str
    attempt: int
    text: str
    choices: tuple[str, ...]
    seq: int
    asked_at: datetime
    answer: str | None
    message: str
    answered_by: str | None
    answered_at: datetime | None
    number: int

    def __repr__(self) -> str:
        from .reprs import one_line

        return one_line(self, "job_id", "key", "attempt", "text", "answer", "answered_by")

    @property
    def is_open(self) -> bool:
        """True while nobody has answered."""
        return self.answer is None

    @property
    def is_allowed(self) -> bool:
        """True only if the answer is ``allow``."""
        return self.answer == ALLOW

    def as_dict(self) -> dict[str, Any]:
        """Return the question as JSON-ready values, under the stable names of the command line's --json."""
        return {
            "job_id": self.job_id,
            "key": self.key,
            "attempt": self.attempt,
            "text": self.text,
            "choices": list(self.choices),
            "seq": self.seq,
            "asked_at": format_time(self.asked_at),
            "answer": self.answer,
            "message": self.message,
            "answered_by": self.answered_by,
            "answered_at": format_time(self.answered_at),
        }
