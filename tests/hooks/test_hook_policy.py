"""Test policies: the first matching rule decides, the default asks, and an allowed pattern allows nothing else."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobdb import InvalidInput
from jobdb.hooks.payload import ToolCall
from jobdb.hooks.policy import Action, Policy, Rule, parse_policy, read_policy

POLICY = b"""
[[rule]]
tool = "Bash"
pattern = "git push*"
action = "deny"

[[rule]]
tool = "Bash"
pattern = "git *"
action = "allow"

[[rule]]
tool = "Read"
pattern = "/repo/*"
action = "allow"

[[rule]]
tool = "mcp__github__get_*"
action = "allow"

[[rule]]
tool = "WebFetch"
pattern = "https://docs.example.com/*"
action = "allow"
"""


def bash(command: str) -> ToolCall:
    return ToolCall(name="Bash", input={"command": command}, use_id="")


def tool(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, input=arguments, use_id="")


@pytest.mark.parametrize(
    ("call", "action"),
    [
        (bash("git status"), Action.ALLOW),
        (bash("git push --force"), Action.DENY),
        (bash("git push; echo"), Action.DENY),
        (bash("git status; rm -rf ~"), Action.ASK),
        (bash("git status && rm -rf ~"), Action.ASK),
        (bash("git status | sh"), Action.ASK),
        (bash("git log $(rm -rf ~)"), Action.ASK),
        (bash("git log `rm -rf ~`"), Action.ASK),
        (bash("git log\nrm -rf ~"), Action.ASK),
        (bash("git log > ~/.bashrc"), Action.ASK),
        (bash("git log \\\nx"), Action.ASK),
        (bash("rm -rf build"), Action.ASK),
        (tool("Read", file_path="/repo/a.txt"), Action.ALLOW),
        (tool("Read", file_path="/repo/../etc/passwd"), Action.ASK),
        (tool("Read", file_path="/etc/passwd"), Action.ASK),
        (tool("mcp__github__get_issue", number=1), Action.ALLOW),
        (tool("mcp__github__delete_issue", number=1), Action.ASK),
        (tool("WebFetch", url="https://docs.example.com/a"), Action.ALLOW),
        (tool("WebFetch", url="https://evil.example.com/"), Action.ASK),
        (tool("Bash", command=["git", "status"]), Action.ASK),
        (tool("Bash"), Action.ASK),
    ],
)
def test_the_first_rule_that_matches_decides(call: ToolCall, action: Action) -> None:
    assert parse_policy(POLICY).decide(call) is action


def test_the_default_asks_and_may_deny_but_not_allow() -> None:
    assert parse_policy(b"").decide(bash("x")) is Action.ASK
    assert parse_policy(b'default = "deny"').decide(bash("x")) is Action.DENY
    assert parse_policy(b'{"default": "deny", "rule": []}', as_json=True).decide(bash("x")) is Action.DENY
    with pytest.raises(InvalidInput, match="default may be ask or deny"):
        parse_policy(b'default = "allow"')


@pytest.mark.parametrize(
    "raw",
    [
        b"[[rule]]",
        b'[[rule]]\naction = "permit"',
        b'[[rule]]\naction = "allow"\ntools = "x"',
        b'[[rule]]\naction = "allow"\ntool = 1',
        b"rule = 1",
        b"rule = [1]",
        b"rules = []",
        b"default = 1",
        b'[[rule]]\naction = "allow"\npattern = "[z-a]"',
        b"\xff",
        b"x",
    ],
)
def test_what_is_no_policy_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_policy(raw)


def test_a_policy_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_policy(str(tmp_path / "none.toml"))
    (tmp_path / "policy.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"policy\.json is invalid: it is not JSON"):
        read_policy(str(tmp_path / "policy.json"))


@given(text=st.text(alphabet="ab*?[]!-^\\.;$(&", max_size=10), pattern=st.text(alphabet="ab*?[]!-^\\.;$(&", max_size=6))
def test_a_pattern_matches_or_not_but_never_allows_a_second_command(text: str, pattern: str) -> None:
    try:
        matches = Rule(Action.ALLOW, "Bash", pattern).matches(bash(text))
    except InvalidInput:  # a range such as [z-a]
        return
    if matches and text != pattern:
        assert all(text.count(control) <= pattern.count(control) for control in ";$(&\\")


@given(text=st.text(alphabet="ab", max_size=8), pattern=st.text(alphabet="ab*?", max_size=8))
def test_wildcards_match_as_in_a_shell(text: str, pattern: str) -> None:
    rule = Rule(Action.DENY, "Bash", pattern)
    assert rule.matches(bash(text)) == fnmatchcase(text, pattern)


def test_many_wildcards_and_a_long_command_take_no_time() -> None:
    """Backtracking would take hours; the agent would give up the hook, and run the command."""
    assert not Rule(Action.DENY, "Bash", "*a" * 30 + "b").matches(bash("a" * 50_000))


@given(text=st.text(max_size=20))
def test_a_pattern_without_wildcards_matches_itself_only(text: str) -> None:
    policy = Policy((Rule(Action.DENY, "Bash", "git push"),))
    assert (policy.decide(bash(text)) is Action.DENY) == (text == "git push")
