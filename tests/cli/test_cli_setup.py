"""Test `jobdb setup`: it shows a diff, keeps what is there, and takes everything out again, byte for byte."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SETTINGS = b'{\r\n\t"model": "x",  "hooks": {},\r\n\t"a": [1,\r\n2]}'
CONFIG = b'# mine\nmodel = "x"'


def files(folder: Path) -> dict[str, bytes]:
    """Return the agents' files below a folder; its database and jobdb's own records are none."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name in ("settings.json", ".mcp.json", "config.toml")
    }


def test_setup_creates_the_files_and_removes_them_again(cli_without_database: Any) -> None:
    cli = cli_without_database
    shown = cli("setup", "claude-code", "--dry-run").out
    assert "+++ " in shown and "jobdb hook claude-code" in shown
    assert files(cli.folder) == {}
    assert cli("setup", "claude-code").out == shown
    assert set(files(cli.folder)) == {".claude/settings.json", ".mcp.json"}
    again = cli("setup", "claude-code")
    assert again.out == "" and again.err.count("nothing to change") == 2
    assert "+++ /dev/null" in cli("setup", "claude-code", "--remove").out
    assert files(cli.folder) == {}
    cli("setup", "claude-code", "--remove")


def test_removal_brings_every_byte_back(cli_without_database: Any) -> None:
    cli = cli_without_database
    project = cli.folder / "project"
    (project / ".claude").mkdir(parents=True)
    (project / ".claude" / "settings.json").write_bytes(SETTINGS)
    (project / ".claude" / "settings.json").chmod(0o640)
    (cli.folder / ".codex").mkdir()
    (cli.folder / ".codex" / "config.toml").write_bytes(CONFIG)
    before = files(cli.folder)
    for arguments in (("claude-code", "--project", project), ("codex",)):
        cli("setup", *arguments)
        cli("setup", *arguments, "--wait", "60")
        assert files(cli.folder) != before
        cli("setup", *arguments, "--remove")
    assert files(cli.folder) == before
    assert (project / ".claude" / "settings.json").stat().st_mode & 0o777 == 0o640


def test_a_file_that_was_changed_since_keeps_the_change(cli_without_database: Any) -> None:
    cli = cli_without_database
    cli("setup", "codex", "--project", ".")
    config = cli.folder / ".codex" / "config.toml"
    config.write_text(config.read_text() + "\n[mine]\n")
    cli("setup", "codex", "--project", ".", "--remove")
    assert config.read_text() == "\n[mine]\n"


def test_a_linked_file_stays_a_link(cli_without_database: Any) -> None:
    cli = cli_without_database
    (cli.folder / "dotfiles").mkdir()
    (cli.folder / "dotfiles" / "config.toml").write_bytes(CONFIG)
    (cli.folder / ".codex").mkdir()
    (cli.folder / ".codex" / "config.toml").symlink_to(cli.folder / "dotfiles" / "config.toml")
    cli("setup", "codex")
    assert (cli.folder / ".codex" / "config.toml").is_symlink()
    assert b"jobdb hook codex" in (cli.folder / "dotfiles" / "config.toml").read_bytes()


def test_what_cannot_be_parsed_is_not_changed(cli_without_database: Any) -> None:
    cli = cli_without_database
    (cli.folder / ".claude").mkdir()
    settings = cli.folder / ".claude" / "settings.json"
    for content in (b"{", b"\xff", b'{"hooks": 1}', b'{// "a": 1\n}'):
        settings.write_bytes(content)
        assert "settings.json is not changed" in cli("setup", "claude-code", code=2).err
        assert files(cli.folder) == {".claude/settings.json": content}


def test_the_options_reach_the_hooks(cli_without_database: Any) -> None:
    cli = cli_without_database
    (cli.folder / "my policy.toml").write_text('default = "deny"\n')
    cli("setup", "claude-code", "--policy", "my policy.toml", "--wait", "60", "--without-job", "pass")
    hooks = json.loads((cli.folder / ".claude" / "settings.json").read_text())["hooks"]
    (hook,) = hooks["PreToolUse"][0]["hooks"]
    assert f"--wait 60 --policy '{cli.folder / 'my policy.toml'}'" in hook["command"]
    assert "--without-job pass" in hooks["PostToolUse"][0]["hooks"][0]["command"]
    assert hook["timeout"] == 90
    assert "cannot be read" in cli("setup", "codex", "--policy", "none.toml", code=2).err
    assert "unknown agent" in cli("setup", "emacs", code=2).err
    assert "deny or pass" in cli("setup", "codex", "--without-job", "allow", code=2).err
    assert "not a folder" in cli("setup", "codex", "--project", "none", code=2).err


def test_json_has_a_line_per_file(cli_without_database: Any) -> None:
    cli = cli_without_database
    lines = cli("setup", "claude-code", "--dry-run", "--json").json_lines
    assert [os.path.basename(line["path"]) for line in lines] == ["settings.json", ".mcp.json"]
    assert all(line["diff"].startswith("--- /dev/null\n") and not line["written"] for line in lines)
    assert [line["written"] for line in cli("setup", "claude-code", "--json").json_lines] == [True, True]
    assert [line["diff"] for line in cli("setup", "claude-code", "--json").json_lines] == [None, None]


@pytest.mark.parametrize("arguments", [("codex",), ("claude-code", "--project", ".")])
def test_a_folder_that_cannot_be_written_is_an_error(cli_without_database: Any, arguments: tuple[str, ...]) -> None:
    cli = cli_without_database
    (cli.folder / ("." + arguments[0].partition("-")[0])).write_text("a file")
    assert "cannot be" in cli("setup", *arguments, code=5).err
