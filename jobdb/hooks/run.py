"""Run a hook: report what happened, or decide whether a tool may run.

Called by ``jobdb hook``, which turns every exception into a denial. Calls the registry.

| the agent's event | what is done |
| --- | --- |
| SessionStart | publish ``started`` with the session's id |
| PostToolUse, Notification | publish ``progress``, after a tool at most once in some seconds |
| PreToolUse, PermissionRequest | decide by policy, or ask and wait for the answer |
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import TimedOut
from ..model import EventKind
from .answers import Decision
from .payload import HookEvent
from .policy import Action
from .question import question_key, question_text, subject

if TYPE_CHECKING:
    from ..registry import Registry
    from .payload import HookInput
    from .policy import Policy
    from .state import AttemptState

MAX_DETAIL_CHARS = 200


def report(registry: Registry, call: HookInput, job_id: str, attempt: int | None) -> None:
    """Publish the event for a hook that decides nothing.

    Args:
        registry: the registry of the job.
        call: what the hook was called with.
        job_id: the agent's job.
        attempt: its attempt.

    Raises:
        JobdbError: the event was refused, or the database cannot be used.
    """
    data = {"agent": call.agent.value, "session": call.session}
    if call.event is HookEvent.SESSION_START:
        if call.source:
            data["source"] = call.source
        registry.publish(job_id, EventKind.STARTED, detail=f"session {call.session}", data=data, attempt=attempt)
        return
    if call.event is HookEvent.NOTIFICATION:
        detail = call.message
    else:
        assert call.tool is not None
        data["tool"] = call.tool.name
        detail = f"{call.tool.name}: {subject(call.tool)}"
    registry.publish(job_id, EventKind.PROGRESS, detail=_short(detail), data=data, attempt=attempt)


def decide(
    registry: Registry,
    call: HookInput,
    job_id: str,
    attempt: int | None,
    *,
    policy: Policy,
    state: AttemptState,
    wait_sec: float,
) -> Decision:
    """Decide whether a tool may run.

    Args:
        registry: the registry of the job.
        call: what the hook was called with, an event that decides.
        job_id: the agent's job.
        attempt: its attempt.
        policy: what needs no question.
        state: the state of the attempt's hooks.
        wait_sec: how long to wait for an answer, in seconds.

    Raises:
        JobdbError: there is no answer; the tool must not run.
    """
    assert call.tool is not None
    action = policy.decide(call.tool)
    if action is not Action.ASK:
        return Decision(action is Action.ALLOW, f"{'allowed' if action is Action.ALLOW else 'denied'} by the policy")
    deadline = time.monotonic() + wait_sec
    key, text, number = question_key(call), question_text(call), 1
    while True:
        numbered = key if number == 1 else f"{key}-{number}"
        if not state.is_used(numbered, call.tool.use_id):
            registry.ask(job_id, text, key=numbered, attempt=attempt)
            left = max(0.0, deadline - time.monotonic())
            try:
                question = registry.wait_for_answer(job_id, numbered, attempt=attempt, timeout_sec=left)
            except TimedOut:
                reason = f"nobody answered within {wait_sec:g} s; the question stays open: try the same call again"
                return Decision(False, reason)
            message = f": {question.message}" if question.message else ""
            if not question.is_allowed:
                return Decision(False, f"denied by {question.answered_by}{message}")
            if state.use(numbered, call.tool.use_id):
                return Decision(True, f"allowed by {question.answered_by}{message}")
        number += 1


def _short(text: str) -> str:
    from .payload import printable

    line = printable(" ".join(text.split()))
    return line if len(line) <= MAX_DETAIL_CHARS else line[: MAX_DETAIL_CHARS - 1] + "…"
