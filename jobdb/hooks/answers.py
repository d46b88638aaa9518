"""The answers to hooks, in each agent's own form.

Called by ``run``. Pure. Neither agent takes every form (tests/hooks tries Codex's with the real one):

- Claude Code takes ``allow`` and ``deny`` as JSON with exit code 0, for both events that decide.
- Codex takes ``deny`` as Claude Code does. To allow a call before its use it wants no output at all: ``allow`` counts
  as a failed hook, and the call runs. It takes ``allow`` for a permission request.
- Both take exit code 2 with a reason on stderr as a denial; to Codex, exit code 2 without a reason is a failed hook.
- Any other exit code, a killed hook and one that exceeds its time let the tool run. So the configured command ends with
  ``|| { echo …; exit 2; }``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .payload import Agent, HookEvent, HookInput

_MAX_REASON_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to an agent: a tool may run, or not.

    Attributes:
        allowed: True if it may.
        reason: why, a sentence for the agent.
    """

    allowed: bool
    reason: str


def render(call: HookInput, decision: Decision) -> str:
    """Return what the hook prints, with exit code 0, for a decision; empty: nothing."""
    reason = decision.reason[:_MAX_REASON_CHARS]
    if call.event is HookEvent.PERMISSION_REQUEST:
        behavior: dict[str, Any] = {"behavior": "allow" if decision.allowed else "deny"}
        if not decision.allowed:
            behavior["message"] = reason
        return _dump({"hookEventName": call.event.value, "decision": behavior})
    assert call.event is HookEvent.PRE_TOOL_USE, "no other event decides"
    if decision.allowed and call.agent is Agent.CODEX:
        return ""
    return _dump(
        {
            "hookEventName": call.event.value,
            "permissionDecision": "allow" if decision.allowed else "deny",
            "permissionDecisionReason": reason,
        }
    )


def _dump(specific: dict[str, Any]) -> str:
    return json.dumps({"hookSpecificOutput": specific}, ensure_ascii=True, separators=(",", ":"))
