"""The text of an error for an agent: the library's sentence, with advice that names tools.

Called by the server for each error of a tool; pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ..errors import AttemptRequired, JobdbError, StaleAttempt, UnknownJob, UnknownQuestion, Unusable

_names_the_library = re.compile(r"\b[Rr]egistry\b|\w\(|\w=").search
_ADVICE: tuple[tuple[type[JobdbError], str, str], ...] = (
    (UnknownJob, "list", "the tool list lists the jobs"),
    (UnknownQuestion, "questions", "the tool questions lists the open questions"),
    (AttemptRequired, "", "pass the attempt that the tool claim returned"),
    (StaleAttempt, "", "stop this work: nothing more of it can be recorded"),
)
"""Classes of errors, the tool that the advice names if it names one, and the advice."""


def sentence(error: JobdbError, tools: Collection[str]) -> str:
    """Return what to tell an agent.

    Args:
        error: the error.
        tools: the names of the tools that the agent has.
    """
    if isinstance(error, Unusable):
        return error.for_command_line()  # only a person can do something about it
    advice = _advice(error, tools)
    return f"{error.message}; {advice}" if advice else error.message


def _advice(error: JobdbError, tools: Collection[str]) -> str:
    for kind, tool, advice in _ADVICE:
        if isinstance(error, kind):
            return advice if not tool or tool in tools else ""
    if not _names_the_library(error.advice):
        return error.advice
    return "the tool show returns the job" if "registry.get(" in error.advice and "show" in tools else ""
