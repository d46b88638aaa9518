"""The entries for hooks and for the MCP server in the configuration files of agents: add and remove them in a text.

Called by ``setup``. Pure. Claude Code has JSON, which ``json_text`` edits; Codex has TOML, to which a block of lines is
appended. Each edit is checked: parsed again, the rest of the file must mean what it meant before.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput, Refused
from .json_text import find, insert, items, parse_object, remove
from .payload import Agent, HookEvent

SPARE_SEC = 30
"""The time that the agent gives a hook beyond the hook's own limit: a hook that exceeds it would let the tool run."""

_REPORT_SEC = 60
_SERVER = "jobdb"
_SERVER_COMMAND = {"command": "jobdb", "args": ["mcp"]}
# Codex passes few variables on to its servers.
_SERVER_VARIABLES = (
    "JOBDB_URL", "JOBDB_JOB_ID", "JOBDB_ATTEMPT", "JOBDB_CONTEXT", "JOBDB_KEY_FILE", "JOBDB_RUNTIME_DIR",
    "JOBDB_POLICY", "XDG_CONFIG_HOME",
)  # fmt: skip
_EVENTS = {
    Agent.CLAUDE_CODE: tuple(HookEvent),
    Agent.CODEX: tuple(event for event in HookEvent if event is not HookEvent.NOTIFICATION),
}
_block_head = re.compile(r"# 'jobdb setup codex' wrote the next (\d+) lines; with --remove it removes them")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookOptions:
    """The options of the configured hooks.

    Attributes:
        wait_sec: how long a hook waits for an answer, in seconds.
        policy: the absolute path of a policy; None: that of JOBDB_POLICY, if any.
        without_job: ``deny`` or ``pass``: what happens to tools of an agent that works on no job.
    """

    wait_sec: int = 570
    policy: str | None = None
    without_job: str = "deny"


def hook_command(agent: Agent, event: HookEvent, options: HookOptions) -> str:
    """Return the shell command of a hook. One that decides ends with exit code 2 and a reason, however it ends."""
    command = f"jobdb hook {agent.value}"
    if options.without_job != "deny":
        command += f" --without-job {options.without_job}"
    if not event.decides:
        return command
    command += f" --wait {options.wait_sec}"
    if options.policy is not None:
        command += f" --policy {shlex.quote(options.policy)}"
    # The shell stays: if jobdb is missing, fails or is killed, it is what denies. A reason must be on stderr.
    command += " || { echo jobdb: no answer, denied >&2; exit 2; }"
    # Codex runs hooks with the user's shell, whatever that is.
    return command if agent is Agent.CLAUDE_CODE else f"sh -c {shlex.quote(command)}"


def add_claude_hooks(text: str, options: HookOptions) -> str:
    """Return the text of a settings.json with the hooks; those of an earlier setup are replaced.

    Raises:
        InvalidInput: it is not JSON, or its hooks are not where they belong.
    """
    changed = remove_claude_hooks(text)
    _ensure(changed, "hooks", dict)
    if find(changed, "hooks") is None:
        changed = insert(changed, _root(changed), {}, name="hooks")
    for event in _EVENTS[Agent.CLAUDE_CODE]:
        _ensure(changed, "hooks", dict)
        hook: dict[str, Any] = {"type": "command", "command": hook_command(Agent.CLAUDE_CODE, event, options)}
        hook["timeout"] = options.wait_sec + SPARE_SEC if event.decides else _REPORT_SEC
        if event.decides:
            hook["onFailure"] = "block"
        group = {"hooks": [hook]}
        place = find(changed, "hooks", event.value)
        if place is None:
            parent = find(changed, "hooks")
            assert parent is not None
            changed = insert(changed, parent, [group], name=event.value)
        elif changed[place] == "[":
            changed = insert(changed, place, group)
        else:
            raise InvalidInput(f"hooks.{event.value} is not a list")
    return _checked_json(text, changed)


def remove_claude_hooks(text: str) -> str:
    """Return the text of a settings.json without the hooks of a setup, and without what is empty then."""
    parse_object(text)
    changed = text
    for event in _EVENTS[Agent.CLAUDE_CODE]:
        while (found := _own_hook(changed, event)) is not None:
            group, hook = found
            changed = _remove_up(changed, ["hooks", event.value, group, "hooks", hook])
    return _checked_json(text, changed)


def add_mcp_server(text: str) -> str:
    """Return the text of a .mcp.json with the server.

    Raises:
        InvalidInput: it is not JSON.
        Refused: it has another server of that name.
    """
    _ensure(text, "mcpServers", dict)
    present = parse_object(text).get("mcpServers", {}).get(_SERVER)
    if present is not None:
        if present != _SERVER_COMMAND:
            raise Refused(f"it has another MCP server named {_SERVER}", advice="rename or remove that one first")
        return text
    place = find(text, "mcpServers")
    if place is None:
        changed = insert(text, _root(text), {_SERVER: _SERVER_COMMAND}, name="mcpServers")
    else:
        changed = insert(text, place, _SERVER_COMMAND, name=_SERVER)
    return _checked_json(text, changed)


def remove_mcp_server(text: str) -> str:
    """Return the text of a .mcp.json without the server, and without what is empty then."""
    servers = parse_object(text).get("mcpServers")
    if not isinstance(servers, dict) or servers.get(_SERVER) != _SERVER_COMMAND:
        return text
    return _checked_json(text, _remove_up(text, ["mcpServers", _SERVER]))


def add_codex_block(text: str, options: HookOptions) -> str:
    """Return the text of a config.toml with the hooks and the server; those of an earlier setup are replaced.

    Raises:
        InvalidInput: it is not TOML.
        Refused: the entries do not fit to what it has, such as another server of that name.
    """
    changed = remove_codex_block(text)
    lines = list(_codex_lines(options))
    head = f"# 'jobdb setup codex' wrote the next {len(lines)} lines; with --remove it removes them"
    separator = "" if not changed else "\n" if changed.endswith("\n") else "\n\n"
    changed += separator + "\n".join((head, *lines)) + "\n"
    try:
        parsed = _parse_toml(changed)
    except InvalidInput as problem:
        raise Refused(
            f"the entries do not fit to what is there ({problem})",
            advice=f"remove a server named {_SERVER}, and write hooks and mcp_servers as tables, not in braces",
        ) from None
    _require_same(_without_own_toml(_parse_toml(text)), _without_own_toml(parsed))
    return changed


def remove_codex_block(text: str) -> str:
    """Return the text of a config.toml without the block of a setup.

    Raises:
        InvalidInput: it is not TOML.
        Refused: somebody has changed the block.
    """
    before = _parse_toml(text)
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if found := _block_head.fullmatch(line.strip()):
            start = number - 1 if number and not lines[number - 1].strip() else number
            changed = "".join(lines[:start] + lines[number + 1 + int(found[1]) :])
            _require_same(_without_own_toml(before), _parse_toml(changed))
            return changed
    return text


def _codex_lines(options: HookOptions) -> Iterator[str]:
    for event in _EVENTS[Agent.CODEX]:
        yield f"[[hooks.{event.value}]]"
        yield f"[[hooks.{event.value}.hooks]]"
        yield 'type = "command"'
        yield f"command = {_toml_text(hook_command(Agent.CODEX, event, options))}"
        yield f"timeout = {options.wait_sec + SPARE_SEC if event.decides else _REPORT_SEC}"
        yield ""
    yield f"[mcp_servers.{_SERVER}]"
    yield f"command = {_toml_text(_SERVER_COMMAND['command'])}"
    yield f"args = {json.dumps(_SERVER_COMMAND['args'])}"
    yield f"env_vars = {json.dumps(_SERVER_VARIABLES)}"


def _toml_text(text: object) -> str:
    """Return a TOML basic string: JSON's escapes are TOML's, except that TOML also escapes DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _parse_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InvalidInput(f"it is not TOML: {problem!s:.200}") from None


def _without_own_toml(parsed: dict[str, Any]) -> dict[str, Any]:
    """Return what a config.toml means without the entries of a setup."""
    found = dict(parsed)
    for name, without in (("hooks", _without_own_hooks), ("mcp_servers", _without_own_server)):
        if isinstance(found.get(name), dict):
            found[name] = without(found[name])
            if not found[name]:
                del found[name]
    return found


def _without_own_server(servers: dict[str, Any]) -> dict[str, Any]:
    return {
        name: server
        for name, server in servers.items()
        if name != _SERVER or not isinstance(server, dict) or server.get("args") != _SERVER_COMMAND["args"]
    }


def _without_own_hooks(hooks: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for event, groups in hooks.items():
        kept = [group for group in groups if not _is_own_group(group)] if isinstance(groups, list) else groups
        if kept or not groups:
            found[event] = kept
    return found


def _is_own_group(group: Any) -> bool:
    hooks = group.get("hooks") if isinstance(group, dict) else None
    return isinstance(hooks, list) and bool(hooks) and all(map(_is_own_hook, hooks))


def _is_own_hook(hook: Any) -> bool:
    command = hook.get("command") if isinstance(hook, dict) else None
    return isinstance(command, str) and re.match(r"(sh -c ')?jobdb hook (claude-code|codex)( |$)", command) is not None


def _own_hook(text: str, event: HookEvent) -> tuple[int, int] | None:
    """Return the numbers of the group and of the hook in it that a setup has written for an event."""
    groups = parse_object(text).get("hooks")
    groups = groups.get(event.value) if isinstance(groups, dict) else None
    for number, group in enumerate(groups if isinstance(groups, list) else ()):
        hooks = group.get("hooks") if isinstance(group, dict) else None
        for inner, hook in enumerate(hooks if isinstance(hooks, list) else ()):
            if _is_own_hook(hook):
                return number, inner
    return None


def _remove_up(text: str, path: list[str | int]) -> str:
    """Remove what a path leads to, and each container above that is empty then; a group goes with its last hook."""
    while path:
        place: int | None = _root(text)
        for name in path[:-1]:
            assert place is not None
            place = next(item.value for item in items(text, place)[0] if item.name == name)
        assert place is not None
        text = remove(text, place, path[-1])
        left = items(text, place)[0]
        path = path[:-1]
        if path and isinstance(path[-1], int):
            if any(item.name == "hooks" for item in left):
                return text
        elif left:
            return text
        if path and path[-1] == "hooks" and len(path) > 1:
            path = path[:-1]  # the list of hooks goes with its group, whatever matcher that has
    return text


def _root(text: str) -> int:
    place = find(text)
    assert place is not None
    return place


def _ensure(text: str, name: str, kind: type) -> None:
    present = parse_object(text)
    if name in present and not isinstance(present[name], kind):
        raise InvalidInput(f"its {name} is not an object")


def _checked_json(before: str, after: str) -> str:
    """Return ``after`` if it differs from ``before`` in the entries of a setup only."""
    _require_same(_without_own_json(parse_object(before)), _without_own_json(parse_object(after)))
    return after


def _without_own_json(parsed: dict[str, Any]) -> dict[str, Any]:
    """Return what a file of Claude Code means without the entries of a setup, and without empty containers of them."""
    found = dict(parsed)
    clean: tuple[tuple[str, Callable[[dict[str, Any]], dict[str, Any]]], ...] = (
        ("hooks", _without_own_claude_hooks),
        ("mcpServers", _without_own_server),
    )
    for name, without in clean:
        if isinstance(found.get(name), dict):
            found[name] = without(found[name])
            if not found[name]:
                del found[name]
    return found


def _without_own_claude_hooks(hooks: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for event, groups in hooks.items():
        if not isinstance(groups, list):
            found[event] = groups
            continue
        kept = []
        for group in groups:
            inner = group.get("hooks") if isinstance(group, dict) else None
            if isinstance(inner, list) and any(map(_is_own_hook, inner)):
                others = [hook for hook in inner if not _is_own_hook(hook)]
                if others:
                    kept.append({**group, "hooks": others})
            else:
                kept.append(group)
        if kept:
            found[event] = kept
    return found


def _require_same(before: object, after: object) -> None:
    if before != after:
        raise Refused(
            "its entries of 'jobdb setup' were changed since, so that they cannot be told from the rest",
            advice="edit it by hand",
        )
