"""The payloads that Claude Code and Codex pass to a hook, and their reading of its answer.

The payloads of claude-code are those of its hooks reference; those of codex were recorded from version 0.171
(`tests.hooks.test_codex_hooks` runs the real one). Both let a tool run whenever a hook fails in any other way than with
exit code 2; `lets_run` is that rule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PAYLOADS = {f"{path.parent.name}/{path.stem}": path for path in sorted(FOLDER.glob("*/*.json"))}


def load_payload(name: str, **changes: Any) -> dict[str, Any]:
    """Return a payload, such as ``codex/pre-tool-use-bash``, with some fields changed."""
    payload = json.loads(PAYLOADS[name].read_text("utf-8"))
    assert isinstance(payload, dict)
    return {**payload, **changes}


def shell_call(agent: str, command: str, use_id: str, folder: str = "/home/ann/repo") -> dict[str, Any]:
    """Return the payload for a shell command that an agent is about to run."""
    return load_payload(f"{agent}/pre-tool-use-bash", tool_input={"command": command}, tool_use_id=use_id, cwd=folder)


def lets_run(agent: str, code: int, out: str, err: str) -> bool:
    """Return whether an agent runs the tool after its PreToolUse hook has ended like this."""
    if code == 2:
        return agent == "codex" and not err.strip()
    if code != 0 or not out.strip():
        return True
    decision = json.loads(out)["hookSpecificOutput"]["permissionDecision"]
    return bool(decision != "deny")
