"""The JSON that an agent passes to a hook on stdin, parsed strictly.

Called by ``run`` for every hook. Pure. What is not understood is refused, so that it cannot be taken for something
harmless: an agent that is refused does not run its tool.

Claude Code and Codex send the same names: ``hook_event_name``, ``session_id``, ``cwd``, and for a tool ``tool_name``,
``tool_input`` and ``tool_use_id``. Further fields are ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from ..core.arguments import shown
from ..errors import InvalidInput

MAX_BYTES = 8 << 20
"""The longest input; an agent that writes a large file sends its content."""

_MAX_NAME_CHARS = 256
_MAX_DETAIL_CHARS = 4000


class Agent(StrEnum):
    """The agents whose hooks are known, by the names of the command line."""

    CLAUDE_CODE = "claude-code"
    CODEX = "codex"


class HookEvent(StrEnum):
    """The events of an agent that a hook is called for."""

    SESSION_START = "SessionStart"
    PRE_TOOL_USE = "PreToolUse"
    PERMISSION_REQUEST = "PermissionRequest"
    POST_TOOL_USE = "PostToolUse"
    NOTIFICATION = "Notification"

    @property
    def decides(self) -> bool:
        """True if the answer decides whether a tool runs."""
        return self in (HookEvent.PRE_TOOL_USE, HookEvent.PERMISSION_REQUEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool that an agent wants to use, or has used.

    Attributes:
        name: the tool, such as Bash or mcp__github__create_issue.
        input: its arguments.
        use_id: the agent's id of this call; empty if the agent gives none with this event.
    """

    name: str
    input: dict[str, Any]
    use_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HookInput:
    """The input of a hook.

    Attributes:
        agent: the agent that called it.
        event: what happened, or is about to.
        session: the agent's id of its session, by which it can be resumed.
        folder: the agent's working folder.
        tool: the tool; None if the event is about none.
        message: the text of a notification; empty for other events.
        source: how the session began, such as startup or resume; empty for other events.
    """

    agent: Agent
    event: HookEvent
    session: str
    folder: str
    tool: ToolCall | None = None
    message: str = ""
    source: str = ""


def parse_input(agent: Agent, raw: bytes) -> HookInput:
    """Parse what an agent wrote to a hook's stdin.

    Args:
        agent: the agent.
        raw: all that it wrote.

    Raises:
        InvalidInput: it is not the input of a hook that is known; the message says why.

    Example:
        >>> parse_input(Agent.CODEX, b'{"hook_event_name": "SessionStart", "session_id": "s1", "cwd": "/w"}').session
        's1'
    """
    if len(raw) > MAX_BYTES:
        raise InvalidInput(f"the hook's input is longer than {MAX_BYTES} bytes")
    fields = _load(raw)
    name = fields.get("hook_event_name")
    if not isinstance(name, str) or name not in tuple(HookEvent):
        known = ", ".join(HookEvent)
        raise InvalidInput(f"the hook was called for {shown(name)}", advice=f"configure it for {known} only")
    event = HookEvent(name)
    return HookInput(
        agent=agent,
        event=event,
        session=_text(fields, "session_id", most=_MAX_NAME_CHARS),
        folder=_text(fields, "cwd", most=_MAX_DETAIL_CHARS),
        tool=_tool(fields) if event.decides or event is HookEvent.POST_TOOL_USE else None,
        message=_optional_text(fields, "message")[:_MAX_DETAIL_CHARS] if event is HookEvent.NOTIFICATION else "",
        source=_optional_text(fields, "source")[:_MAX_NAME_CHARS] if event is HookEvent.SESSION_START else "",
    )


def _tool(fields: dict[str, Any]) -> ToolCall:
    arguments = fields.get("tool_input")
    if not isinstance(arguments, dict):
        raise InvalidInput(f"the hook's input has no tool_input that is an object: {shown(arguments)}")
    return ToolCall(
        name=_text(fields, "tool_name", most=_MAX_NAME_CHARS),
        input=arguments,
        use_id=_optional_text(fields, "tool_use_id")[:_MAX_NAME_CHARS],
    )


def _load(raw: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except InvalidInput:
        raise
    except UnicodeDecodeError as problem:
        raise InvalidInput(f"the hook's input is not UTF-8 (byte {problem.start})") from None
    except (ValueError, RecursionError) as problem:
        raise InvalidInput(f"the hook's input is not JSON: {problem!s:.200}") from None
    if not isinstance(fields, dict):
        raise InvalidInput(f"the hook's input is not a JSON object: {shown(fields)}")
    return fields


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInput("the hook's input has the same name twice in an object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInput(f"the hook's input contains {name}, which is not JSON")


def _text(fields: dict[str, Any], name: str, *, most: int) -> str:
    value = _optional_text(fields, name)
    if not value or len(value) > most:
        raise InvalidInput(f"the hook's input has no {name} of 1 to {most} characters: {shown(fields.get(name))}")
    return value


def _optional_text(fields: dict[str, Any], name: str) -> str:
    """Return a text that may be missing or null, with lone surrogates and NUL made visible."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} in the hook's input is not text: {shown(value)}")
    return printable(value)


def printable(text: str) -> str:
    """Return text that can be stored: lone surrogates and NUL are escaped."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
