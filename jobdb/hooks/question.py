r"""The question that a tool call stands for: its key, and its text.

Called by ``run``, and by ``policy`` for what a pattern is compared with. Pure.

The key is a digest of what would happen: the agent, its folder, the tool and its arguments. So a hook that is run
twice, and a later attempt that repeats the call, ask the same question. ``tool_use_id`` is not part of it, because
every attempt has its own; ``state`` makes sure that one answer lets one call through per attempt.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from .payload import Agent, HookEvent, printable

if TYPE_CHECKING:
    from .payload import HookInput, ToolCall

MAX_SHOWN_CHARS = 16_000
"""The longest command that is asked about. Nobody may be asked about one whose end he cannot see."""

SHELL_TOOLS = ("Bash", "PowerShell", "apply_patch", "exec_command", "shell", "shell_command", "unified_exec")
_PATHS = ("file_path", "notebook_path", "path")
_SLUG = re.compile(r"[^A-Za-z0-9_-]+")


def question_key(call: HookInput) -> str:
    """Return the key of the question for a tool call, at most 80 characters."""
    tool = _tool(call)
    facts = {
        "agent": call.agent.value,
        "folder": call.folder,
        "tool": tool.name,
        "input": _what_acts(call.agent, tool),
        # Codex asks this way to leave its sandbox, which is another question than whether to run the command at all.
        "event": call.event.value if call.agent is Agent.CODEX and call.event is HookEvent.PERMISSION_REQUEST else "",
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{_SLUG.sub('-', tool.name)[:40]}-{hashlib.sha256(text.encode('ascii')).hexdigest()[:32]}"


def question_text(call: HookInput) -> str:
    """Return what a person is asked.

    Raises:
        InvalidInput: the call is too long to be shown.
    """
    tool = _tool(call)
    shown = subject(tool)
    what = f"{tool.name}: {shown}"
    if tool.name not in SHELL_TOOLS and shown != _canonical(tool.input):
        what += f" {_canonical(tool.input)}"
    if call.agent is Agent.CODEX and call.event is HookEvent.PERMISSION_REQUEST:
        reason = tool.input.get("description")
        what = f"outside of the sandbox: {what}" + (f" ({reason})" if isinstance(reason, str) and reason else "")
    what = printable(what)
    if len(what) > MAX_SHOWN_CHARS:
        if tool.name in SHELL_TOOLS:
            raise InvalidInput(
                f"the command has {len(what)} characters, more than a person can be asked about",
                advice=f"use a command of at most {MAX_SHOWN_CHARS - 500} characters, or a script that can be read",
            )
        digest = hashlib.sha256(what.encode("utf-8")).hexdigest()[:16]
        what = f"{what[: MAX_SHOWN_CHARS // 2]}… [{len(what)} characters in all, sha256 {digest}…]"
    return f"{what} [in {call.folder}]"


def subject(tool: ToolCall) -> str:
    """Return what the patterns of a policy are compared with: the command, the path, the URL, else all arguments."""
    if tool.name in SHELL_TOOLS:
        command = tool.input.get("command", tool.input.get("cmd"))
        return command if isinstance(command, str) else _canonical(tool.input)
    for name in (*_PATHS, "url"):
        value = tool.input.get(name)
        if isinstance(value, str):
            return value
    return _canonical(tool.input)


def _what_acts(agent: Agent, tool: ToolCall) -> dict[str, object]:
    """Return the arguments without the remark on a command, which the model words differently each time."""
    if agent is Agent.CLAUDE_CODE and tool.name == "Bash":
        return {name: value for name, value in tool.input.items() if name != "description"}
    return tool.input


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _tool(call: HookInput) -> ToolCall:
    assert call.tool is not None, "only events with a tool are asked about"
    return call.tool
