"""Test what a hook understands, and that nothing that it does not understand lets a tool run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobdb import InvalidInput, Registry
from jobdb.hooks.answers import Decision, render
from jobdb.hooks.payload import Agent, HookEvent, HookInput, parse_input
from jobdb.hooks.policy import Policy
from jobdb.hooks.question import question_key, question_text
from jobdb.hooks.run import decide
from jobdb.hooks.state import AttemptState
from tests.support.hooks.agents import PAYLOADS, lets_run, load_payload, shell_call

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
AGENTS = st.sampled_from(list(Agent))


def parse(agent: str, payload: object) -> HookInput:
    return parse_input(Agent(agent), json.dumps(payload).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", PAYLOADS)
def test_every_recorded_payload_is_understood(name: str) -> None:
    agent = name.partition("/")[0]
    call = parse(agent, load_payload(name))
    assert call.session and call.folder
    assert (call.tool is not None) == ("tool" in name or "permission" in name)
    if call.event.decides:
        assert len(question_key(call)) <= 80
        assert question_text(call).endswith(f"[in {call.folder}]")
        for allowed in (True, False):
            out = render(call, Decision(allowed, "why"))
            if call.event is HookEvent.PRE_TOOL_USE:
                assert lets_run(agent, 0, out, "") == allowed
            else:
                behavior = json.loads(out)["hookSpecificOutput"]["decision"]["behavior"]
                assert behavior == ("allow" if allowed else "deny")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON"),
        (b"null", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 100_000, "not JSON"),
        (b'{"hook_event_name": "Stop", "hook_event_name": "PreToolUse"}', "twice"),
        (b'{"hook_event_name": "Stop", "session_id": "s", "cwd": "/"}', "called for 'Stop'"),
        (b'{"hook_event_name": ["PreToolUse"]}', "called for"),
        (b'{"hook_event_name": "SessionStart", "session_id": "", "cwd": "/"}', "session_id"),
        (b'{"hook_event_name": "PreToolUse", "session_id": "s", "cwd": "/", "tool_name": "Bash"}', "tool_input"),
        (b'{"hook_event_name": "PreToolUse", "session_id": "s", "cwd": "/", "tool_input": {}}', "tool_name"),
        (b'{"hook_event_name": "PreToolUse", "session_id": 1, "cwd": "/"}', "session_id"),
        (b" " * (8 << 20) + b"{}", "longer"),
    ],
)
def test_anything_else_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        parse_input(Agent.CODEX, raw)


class NoRegistry:
    """A registry that cannot be reached."""

    def __getattr__(self, name: str) -> Any:
        raise OSError("no registry")


def outcome(agent: Agent, raw: bytes, state: Path) -> bool:
    """Return whether a tool would run, if nobody can be asked and no policy is given."""
    try:
        call = parse_input(agent, raw)
        if not call.event.decides:
            return False
        registry: Any = NoRegistry()
        state_file = AttemptState(str(state / "hooks.json"))
        decision = decide(registry, call, "j1", 1, policy=Policy(), state=state_file, wait_sec=0)
        return lets_run(agent.value, 0, render(call, decision), "")
    except Exception:
        return False


@settings(max_examples=200, deadline=None)
@given(agent=AGENTS, raw=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_input_lets_a_tool_run(tmp_path_factory: pytest.TempPathFactory, agent: Agent, raw: bytes) -> None:
    assert not outcome(agent, raw, tmp_path_factory.getbasetemp())


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_change_of_a_payload_lets_a_tool_run(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in PAYLOADS if "pre-tool" in name]))
    payload = load_payload(name)
    field = data.draw(st.sampled_from(sorted(payload)))
    change = data.draw(st.sampled_from(("remove", "replace", "cut")))
    if change == "remove":
        del payload[field]
    elif change == "replace":
        payload[field] = data.draw(JSON)
    raw = json.dumps(payload).encode()
    if change == "cut":
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    assert not outcome(Agent(name.partition("/")[0]), raw, tmp_path_factory.getbasetemp())


def test_the_same_call_is_the_same_question_in_every_attempt() -> None:
    one = parse("codex", shell_call("codex", "rm -rf build", "call_1"))
    again = parse("codex", {**shell_call("codex", "rm -rf build", "call_9"), "session_id": "another", "turn_id": "t"})
    assert question_key(one) == question_key(again)
    for changed in (
        shell_call("codex", "rm -rf build ", "call_1"),
        shell_call("codex", "rm -rf build", "call_1", folder="/elsewhere"),
        {**shell_call("codex", "rm -rf build", "call_1"), "tool_name": "other"},
    ):
        assert question_key(parse("codex", changed)) != question_key(one)


def test_a_remark_on_a_command_is_not_part_of_the_question_unless_it_says_what_is_permitted() -> None:
    for agent, same in (("claude-code", True), ("codex", False)):
        payload = shell_call(agent, "rm -rf build", "call_1")
        keys = {
            question_key(parse(agent, {**payload, "tool_input": {"command": "rm", "description": text}}))
            for text in ("one", "two")
        }
        assert (len(keys) == 1) == same


def test_claude_code_asks_once_for_the_use_and_the_permission() -> None:
    use = load_payload("claude-code/pre-tool-use-bash")
    request = load_payload("claude-code/permission-request-bash", tool_input=use["tool_input"])
    assert question_key(parse("claude-code", use)) == question_key(parse("claude-code", request))
    # Codex asks for permission to leave its sandbox, after it was allowed to run the command.
    use = load_payload("codex/pre-tool-use-bash")
    outside = {**use, "hook_event_name": "PermissionRequest"}
    assert question_key(parse("codex", use)) != question_key(parse("codex", outside))
    assert question_text(parse("codex", outside)).startswith("outside of the sandbox: ")


def test_a_command_that_nobody_could_read_is_not_asked_about() -> None:
    with pytest.raises(InvalidInput, match="more than a person can be asked about"):
        question_text(parse("codex", shell_call("codex", "true " * 5000, "call_1")))
    content = load_payload("claude-code/pre-tool-use-write", tool_input={"file_path": "/a", "content": "x" * 100_000})
    text = question_text(parse("claude-code", content))
    assert "characters in all, sha256" in text and len(text) < 20_000


def test_an_answer_lets_one_call_through_per_attempt(tmp_path: Path, database: Path) -> None:
    with Registry.open(database) as registry:
        registry.register(agent="codex", prompt="p", job_id="j1")
        registry.claim(worker="w")

        def ask(use_id: str, attempt: int, state: str) -> bool:
            call = parse("codex", shell_call("codex", "sh deploy.sh", use_id))
            state_file = AttemptState(str(tmp_path / state))
            return decide(registry, call, "j1", attempt, policy=Policy(), state=state_file, wait_sec=0).allowed

        assert not ask("call_1", 1, "1")
        registry.answer("j1", "allow", by="ann")
        assert ask("call_1", 1, "1")
        assert ask("call_1", 1, "1"), "a hook that is run twice for one call"
        assert not ask("call_2", 1, "1"), "another call of the same command"
        (second,) = registry.questions(job_id="j1")
        registry.answer("j1", "deny", by="ann", key=second.key)
        assert not ask("call_2", 1, "1") and not ask("call_3", 1, "1")
        registry.release("j1", attempt=1)
        registry.claim(worker="w")
        assert ask("call_1", 2, "2") and not ask("call_2", 2, "2"), "the next attempt finds both answers"
        assert len(registry.questions(job_id="j1", open_only=False)) == 2


def test_a_damaged_state_denies(tmp_path: Path) -> None:
    from jobdb import StorageFailed

    state = AttemptState(str(tmp_path / "hooks.json"))
    assert state.use("k", "call_1") and not state.use("k", "call_2") and state.use("k", "call_1")
    content = (tmp_path / "hooks.json").read_bytes()
    for size in range(1, len(content)):
        (tmp_path / "hooks.json").write_bytes(content[:size])
        with pytest.raises(StorageFailed):
            state.is_used("k", "call_2")


def test_progress_is_reported_once_in_a_while(tmp_path: Path) -> None:
    state = AttemptState(str(tmp_path / "hooks.json"))
    assert [state.take_turn(every_sec=600) for _ in range(3)] == [True, False, False]
    assert state.take_turn(every_sec=0)
