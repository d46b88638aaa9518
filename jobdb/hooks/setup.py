"""Write this program's hooks and MCP server into an agent's configuration, and take them out again.

Called by ``jobdb setup``. Calls ``configuration`` for the texts, and replaces files atomically.

``plan_setup`` says what would change, ``apply_edits`` does it. To undo exactly, the original of each file is kept in
this user's configuration folder, beside the master key: if nobody has changed the file since, its removal brings every
byte back; otherwise only the entries are taken out.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..crypto.master_key import default_key_path
from ..errors import InvalidInput, JobdbError, Refused, StorageFailed
from ..filesystem.atomic_files import write_file
from ..filesystem.permissions import make_private_folder
from .configuration import (
    HookOptions,
    add_claude_hooks,
    add_codex_block,
    add_mcp_server,
    remove_claude_hooks,
    remove_codex_block,
    remove_mcp_server,
)
from .payload import Agent

_MAX_BYTES = 16 << 20
_NEW_JSON = "{\n}\n"


@dataclass(frozen=True, slots=True)
class FileEdit:
    """A change of one file.

    Attributes:
        path: the file; links in its name are resolved.
        before: its content; None if there is none.
        after: its new content; None: it is removed.
        original: its content before the first setup, which is kept to undo it; None if there was none.
    """

    path: str
    before: bytes | None
    after: bytes | None
    original: bytes | None

    def diff(self) -> str:
        """Return the change as a unified diff; empty if there is none."""
        before, after = ((text or b"").decode("utf-8").splitlines(keepends=True) for text in (self.before, self.after))
        lines = difflib.unified_diff(
            before,
            after,
            "/dev/null" if self.before is None else self.path,
            "/dev/null" if self.after is None else self.path,
        )
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


@dataclass(frozen=True, slots=True)
class _Target:
    path: str
    empty: str
    add: Callable[[str], str]
    remove: Callable[[str], str]


def plan_setup(
    agent: Agent,
    *,
    project: str | None = None,
    remove: bool = False,
    options: HookOptions | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[FileEdit]:
    """Return the changes of an agent's files that add or remove the entries; nothing is written.

    Args:
        agent: the agent.
        project: the folder of the project; None: the current one for Claude Code, the user's configuration for Codex.
        remove: take the entries out.
        options: what the hooks are called with.
        environ: the environment variables; those of this process if None.

    Raises:
        InvalidInput: a file is not what the agent would accept; the message says which.
        Refused: the entries do not fit to what a file has, or were changed since.
        StorageFailed: a file cannot be read.
    """
    edits = []
    environ = os.environ if environ is None else environ
    for target in _targets(agent, project, options or HookOptions(), environ):
        path = os.path.realpath(target.path)
        before = _read(path)
        original, is_unchanged = _recall(path, before)
        try:
            if remove:
                after = original if is_unchanged else _removed(before, target)
            else:
                start = original if is_unchanged else before
                after = target.add(target.empty if start is None else _text(start)).encode("utf-8")
                original = start
        except JobdbError as problem:
            raise type(problem)(f"{path} is not changed: {problem}") from None
        edits.append(FileEdit(path, before, after, original))
    return edits


def apply_edits(edits: list[FileEdit], *, remove: bool) -> None:
    """Write what ``plan_setup`` has planned: each file atomically, with the mode that it has.

    Args:
        edits: the changes.
        remove: as for ``plan_setup``: forget the originals.

    Raises:
        Refused: a file was changed meanwhile.
        StorageFailed: a file cannot be written; those before it are.
    """
    for edit in edits:
        if _read(edit.path) != edit.before:
            raise Refused(f"{edit.path} was changed meanwhile", advice="try again")
        try:
            if not remove and edit.after is not None:
                _remember(edit)
            if edit.after != edit.before:
                _replace(edit)
            if remove:
                with suppress(FileNotFoundError):
                    os.unlink(_record_path(edit.path))
        except OSError as problem:
            raise StorageFailed(f"{edit.path} cannot be written: {problem.strerror}") from problem


def _targets(agent: Agent, project: str | None, options: HookOptions, environ: Mapping[str, str]) -> list[_Target]:
    if project is not None and not os.path.isdir(project):
        raise InvalidInput(f"{project} is not a folder")
    if agent is Agent.CODEX:
        home = environ.get("CODEX_HOME") or os.path.join(os.path.expanduser("~"), ".codex")
        folder = home if project is None else os.path.join(project, ".codex")
        path = os.path.join(folder, "config.toml")
        return [_Target(path, "", lambda text: add_codex_block(text, options), remove_codex_block)]
    folder = project or "."
    settings = os.path.join(folder, ".claude", "settings.json")
    return [
        _Target(settings, _NEW_JSON, lambda text: add_claude_hooks(text, options), remove_claude_hooks),
        _Target(os.path.join(folder, ".mcp.json"), _NEW_JSON, add_mcp_server, remove_mcp_server),
    ]


def _removed(before: bytes | None, target: _Target) -> bytes | None:
    return None if before is None else target.remove(_text(before)).encode("utf-8")


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise InvalidInput(f"it is not UTF-8 (byte {problem.start})") from None


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput(f"{path} is not a file")
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise StorageFailed(f"{path} cannot be read: {problem.strerror}") from problem
    if len(content) > _MAX_BYTES:
        raise InvalidInput(f"{path} is longer than {_MAX_BYTES} bytes")
    return content


def _replace(edit: FileEdit) -> None:
    path = Path(edit.path)
    if edit.after is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode) if edit.before is not None else 0o666 & ~_umask()
    write_file(path, edit.after, follow_folder_link=True)
    os.chmod(path, mode)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def _record_path(path: str) -> Path:
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    return Path(default_key_path()).parent / "setup" / f"{name}.json"


def _remember(edit: FileEdit) -> None:
    record = _record_path(edit.path)
    make_private_folder(record.parent)
    assert edit.after is not None
    facts = {
        "path": edit.path,
        "original": None if edit.original is None else base64.b64encode(edit.original).decode("ascii"),
        "after": hashlib.sha256(edit.after).hexdigest(),
    }
    write_file(record, json.dumps(facts).encode("ascii"), follow_folder_link=True)


def _recall(path: str, content: bytes | None) -> tuple[bytes | None, bool]:
    """Return the original of a file, and whether nobody has changed the file since its setup."""
    if content is None:
        return None, False
    try:
        facts = json.loads(_record_path(path).read_bytes())
        if facts["path"] == path and facts["after"] == hashlib.sha256(content).hexdigest():
            original = facts["original"]
            return None if original is None else base64.b64decode(original), True
    except (OSError, ValueError, KeyError, TypeError, JobdbError):
        pass
    return None, False
