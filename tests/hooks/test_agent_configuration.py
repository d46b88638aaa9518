"""Test the entries in agents' configuration files: everything else stays as it is, in meaning and in bytes."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobdb import InvalidInput, JobdbError, Refused
from jobdb.hooks.configuration import (
    HookOptions,
    add_claude_hooks,
    add_codex_block,
    add_mcp_server,
    hook_command,
    remove_claude_hooks,
    remove_codex_block,
    remove_mcp_server,
)
from jobdb.hooks.json_text import find, insert, items, remove
from jobdb.hooks.payload import Agent, HookEvent

OPTIONS = HookOptions(wait_sec=100, policy="/home/ann/my policy's.toml")

SETTINGS = """\
{
    "model": "opus",   "permissions": { "allow": ["Bash(ls)",
        "Read"] },
    "hooks": {
        "PreToolUse": [
            {"matcher": "Bash", "hooks": [{"type": "command", "command": "check.sh"}]}
        ],
        "Stop": []
    },
    "env": {}
}
"""

CONFIG = """\
# my settings
model = "gpt"     # the best

[projects."/home/ann/repo"]
trust_level = "trusted"

[[hooks.PreToolUse]]
matcher = "^Bash$"
[[hooks.PreToolUse.hooks]]
type = "command"
command = "check.sh"

[mcp_servers.github]
command = "github"   # theirs
"""


def own_hooks(parsed: dict[str, Any], event: str) -> list[dict[str, Any]]:
    return [hook for group in parsed["hooks"][event] for hook in group["hooks"] if "jobdb" in hook["command"]]


def test_claude_code_gets_a_hook_per_event_that_fails_closed() -> None:
    changed = add_claude_hooks(SETTINGS, OPTIONS)
    parsed = json.loads(changed)
    for event in HookEvent:
        (hook,) = own_hooks(parsed, event.value)
        assert (hook.get("onFailure") == "block") == event.decides
        if event.decides:
            assert hook["timeout"] > OPTIONS.wait_sec + 15, "the agent gives it more time than it takes"
            assert hook["command"].endswith("|| { echo jobdb: no answer, denied >&2; exit 2; }")
    assert parsed["hooks"]["PreToolUse"][0]["hooks"][0]["command"] == "check.sh"
    kept = [line for line in SETTINGS.splitlines() if "check.sh" not in line and "Stop" not in line]
    assert [line for line in kept if line not in changed] == [], "each line of the rest is there as it was"


def test_hooks_of_an_earlier_setup_are_replaced_and_taken_out_again() -> None:
    changed = add_claude_hooks(add_claude_hooks(SETTINGS, OPTIONS), HookOptions(wait_sec=7))
    assert len(own_hooks(json.loads(changed), "PreToolUse")) == 1
    assert json.loads(remove_claude_hooks(changed)) == json.loads(SETTINGS)
    assert remove_claude_hooks(SETTINGS) == SETTINGS
    beside = changed.replace('"timeout": 60\n', '"timeout": 60\n}, {"type": "command", "command": "mine"\n')
    left = json.loads(remove_claude_hooks(beside))
    assert left["hooks"]["PostToolUse"] == [{"hooks": [{"type": "command", "command": "mine"}]}]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a": 1, "a": 2}', '{"hooks": []}', '{"hooks": {"PreToolUse": {}}}', "// x\n{}", "\ufeff{}"],
)
def test_settings_that_are_not_understood_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        add_claude_hooks(text, OPTIONS)


def test_the_server_is_added_beside_others_and_never_replaces_one() -> None:
    text = '{"mcpServers": {"github": {"command": "x"}}}'
    changed = add_mcp_server(text)
    assert changed == ('{"mcpServers": {"github": {"command": "x"}, "jobdb": {"command": "jobdb", "args": ["mcp"]}}}')
    assert add_mcp_server(changed) == changed
    assert remove_mcp_server(changed) == text
    other = '{"mcpServers": {"jobdb": {"command": "other"}}}'
    with pytest.raises(Refused, match="another MCP server"):
        add_mcp_server(other)
    assert remove_mcp_server(other) == other


def test_codex_gets_a_block_at_the_end() -> None:
    changed = add_codex_block(CONFIG, OPTIONS)
    assert changed.startswith(CONFIG)
    parsed = tomllib.loads(changed)
    for event in HookEvent:
        if event is not HookEvent.NOTIFICATION:
            (hook,) = own_hooks(parsed, event.value)
            assert hook["command"] == hook_command(Agent.CODEX, event, OPTIONS)
    assert parsed["mcp_servers"]["jobdb"]["args"] == ["mcp"]
    assert remove_codex_block(changed) == CONFIG
    assert remove_codex_block(add_codex_block(changed, HookOptions())) == CONFIG
    later = changed + '\n[hooks.state."x"]\ntrusted_hash = "sha256:1"\n'
    assert remove_codex_block(later) == CONFIG + '\n[hooks.state."x"]\ntrusted_hash = "sha256:1"\n'


@pytest.mark.parametrize(
    "text", ["x", "hooks = {}", "[hooks]\nPreToolUse = []", '[mcp_servers.jobdb]\ncommand = "x"', "mcp_servers = {}"]
)
def test_a_config_that_the_entries_do_not_fit_to_is_refused(text: str) -> None:
    with pytest.raises(JobdbError):
        add_codex_block(text, OPTIONS)


def test_a_block_that_somebody_has_changed_is_not_removed() -> None:
    changed = add_codex_block(CONFIG, OPTIONS)
    for text in (
        changed.replace('args = ["mcp"]\n', '[mcp_servers.mine]\ncommand = "x"\n'),
        changed.replace("[[hooks.SessionStart]]\n", "[[hooks.SessionStart]]\n# mine\n"),
    ):
        with pytest.raises(Refused, match="edit it by hand"):
            remove_codex_block(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
LAYOUTS = st.sampled_from(({}, {"indent": 2}, {"indent": 4}, {"indent": "\t"}, {"separators": (",", ":")}))


@settings(deadline=None)
@given(value=st.dictionaries(st.text(max_size=4), JSON, max_size=4), layout=LAYOUTS, added=JSON)
def test_json_is_edited_in_place(value: dict[str, Any], layout: dict[str, Any], added: Any) -> None:
    value.pop("new", None)
    text = json.dumps(value, ensure_ascii=False, **layout)
    changed = insert(text, 0, added, name="new")
    assert json.loads(changed) == {**value, "new": added}
    assert list(json.loads(changed)) == [*value, "new"]
    back = remove(changed, 0, "new")
    assert json.loads(back) == value
    if value:
        assert back == text
    for name, inside in value.items():
        place = find(text, name)
        assert place is not None
        if isinstance(inside, (list, dict)):
            assert [item.name for item in items(text, place)[0]] == list(
                inside if isinstance(inside, dict) else range(len(inside))
            )


@settings(deadline=None)
@given(value=st.dictionaries(st.sampled_from(("a", "hooks", "env")), JSON, max_size=3), layout=LAYOUTS)
def test_any_settings_keep_their_meaning_or_are_refused(value: dict[str, Any], layout: dict[str, Any]) -> None:
    text = json.dumps(value, **layout)
    try:
        changed = add_claude_hooks(text, OPTIONS)
    except JobdbError:
        return
    left = json.loads(remove_claude_hooks(changed))
    assert {name: kept for name, kept in left.items() if name != "hooks"} == {
        name: kept for name, kept in value.items() if name != "hooks"
    }
