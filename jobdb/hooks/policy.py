"""The policy: which tool calls are allowed or denied without a question. The first matching rule decides.

Called by ``run``; pure, except for reading the file. A policy is TOML or JSON::

    default = "ask"                                                # or "deny"

    [[rule]]
    tool = "Read"
    action = "allow"

    [[rule]]
    tool = "Bash"
    pattern = "git status*"
    action = "allow"

``tool`` and ``pattern`` are shell-style patterns with ``*``, ``?`` and ``[…]``; a pattern is compared with the command
of a shell, the path of a file, the URL of a fetch, and with all arguments, as JSON, of any other tool. What a wildcard
of an *allow* rule stands for is limited, so that "git status*" does not allow "git status; rm -rf ~": none of the
characters by which a shell begins another command, and no path with ``..`` in it.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from ..core.arguments import shown
from ..errors import InvalidInput
from .payload import ToolCall
from .question import SHELL_TOOLS, subject

_MAX_BYTES = 1 << 20
_RULE_FIELDS = ("tool", "pattern", "action")
_POLICY_FIELDS = ("default", "rule")
_SHELL_CONTROL = r";&|<>()$`\\\n\r\0"


class Action(StrEnum):
    """The decision about a tool call."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy.

    Attributes:
        action: what happens to a call that matches.
        tool: a pattern for the tool's name.
        pattern: a pattern for what the tool acts on; None: whatever it is.
    """

    action: Action
    tool: str = "*"
    pattern: str | None = None

    def matches(self, tool: ToolCall) -> bool:
        """Tell whether this rule is for a tool call.

        Example:
            >>> rule = Rule(Action.ALLOW, "Bash", "git status*")
            >>> rule.matches(ToolCall(name="Bash", input={"command": "git status -s"}, use_id=""))
            True
            >>> rule.matches(ToolCall(name="Bash", input={"command": "git status; rm -rf ~"}, use_id=""))
            False
        """
        if not _matches(self.tool, tool.name, any_character="."):
            return False
        if self.pattern is None:
            return True
        text = subject(tool)
        if self.action is not Action.ALLOW:
            return _matches(self.pattern, text, any_character=".")
        if text == self.pattern:
            return True
        if tool.name in SHELL_TOOLS:
            return _matches(self.pattern, text, any_character=f"[^{_SHELL_CONTROL}]")
        return ".." not in text.split("/") and _matches(self.pattern, text, any_character=r"[^\0]")


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in the order in which they are tried.

    Attributes:
        rules: the rules.
        default: what happens to a call that none of them matches; never ``allow``.
    """

    rules: tuple[Rule, ...] = ()
    default: Action = Action.ASK

    def decide(self, tool: ToolCall) -> Action:
        """Return what happens to a tool call."""
        return next((rule.action for rule in self.rules if rule.matches(tool)), self.default)


def read_policy(path: str) -> Policy:
    """Read a policy from a file; JSON if its name ends with .json, else TOML.

    Raises:
        InvalidInput: it is missing, cannot be read, or is not a policy.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as problem:
        raise InvalidInput(f"the policy {path} cannot be read: {problem.strerror}") from None
    if len(raw) > _MAX_BYTES:
        raise InvalidInput(f"the policy {path} is longer than {_MAX_BYTES} bytes")
    try:
        return parse_policy(raw, as_json=path.endswith(".json"))
    except InvalidInput as problem:
        raise InvalidInput(f"the policy {path} is invalid: {problem}") from None


def parse_policy(raw: bytes, *, as_json: bool = False) -> Policy:
    """Parse a policy.

    Raises:
        InvalidInput: it is not a policy; the message says why.
    """
    try:
        text = raw.decode("utf-8")
        fields = json.loads(text) if as_json else tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InvalidInput(f"it is not {'JSON' if as_json else 'TOML'}: {problem!s:.200}") from None
    if not isinstance(fields, dict):
        raise InvalidInput("it is not an object")
    _refuse_unknown(fields, _POLICY_FIELDS)
    default = _action(fields.get("default", "ask"))
    if default is Action.ALLOW:
        raise InvalidInput("default may be ask or deny", advice="end with a rule that allows what you mean to allow")
    rules = fields.get("rule", [])
    if not isinstance(rules, list):
        raise InvalidInput("rule is not a list")
    return Policy(tuple(_rule(rule) for rule in rules), default)


def _rule(fields: Any) -> Rule:
    if not isinstance(fields, dict):
        raise InvalidInput(f"a rule is not an object: {shown(fields)}")
    _refuse_unknown(fields, _RULE_FIELDS)
    tool, pattern = fields.get("tool", "*"), fields.get("pattern")
    if not isinstance(tool, str) or not (pattern is None or isinstance(pattern, str)):
        raise InvalidInput("tool and pattern must be text")
    if "action" not in fields:
        raise InvalidInput("a rule has no action")
    for text in (tool, pattern or ""):
        _compile(text, ".")
    return Rule(_action(fields["action"]), tool, pattern)


def _refuse_unknown(fields: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in fields:
        if name not in known:
            raise InvalidInput(f"unknown field {shown(name)}; the fields are {', '.join(known)}")


def _action(value: object) -> Action:
    if not isinstance(value, str) or value not in tuple(Action):
        raise InvalidInput(f"an action is {shown(value)}; use allow, deny or ask")
    return Action(value)


def _matches(pattern: str, text: str, *, any_character: str) -> bool:
    """Tell whether a shell-style pattern matches a whole text; wildcards stand for ``any_character`` only."""
    return _compile(pattern, any_character).fullmatch(text) is not None


@cache
def _compile(pattern: str, any_character: str) -> re.Pattern[str]:
    """Return a regular expression for a pattern. What is between two ``*`` matches as early as it can, and once.

    Raises:
        InvalidInput: the pattern has an invalid range, such as ``[z-a]``.
    """
    sections = [""]
    place = 0
    while place < len(pattern):
        character = pattern[place]
        place += 1
        if character == "*":
            sections.append("")
        elif character == "?":
            sections[-1] += any_character
        elif character == "[" and (end := pattern.find("]", place + 1)) > 0:
            inner = pattern[place:end]
            negated = inner.startswith("!")
            listed = re.sub(r"([\\\]\[^&~|])", r"\\\1", inner[1:] if negated else inner)
            # The lookahead keeps a set, a negated one above all, within what a wildcard may stand for.
            sections[-1] += f"(?={any_character})[{'^' if negated else ''}{listed}]"
            place = end + 1
        else:
            sections[-1] += re.escape(character)
    first, *between = sections
    last = f"{any_character}*{between.pop()}" if between else ""
    middle = "".join(f"(?>{any_character}*?{section})" for section in between)
    try:
        return re.compile(first + middle + last, re.DOTALL)
    except re.error as problem:
        raise InvalidInput(f"the pattern {pattern!r:.100} is invalid: {problem}") from None
