"""The real Codex command line, configured to use a `ModelServer`; tests/services.sh installs it.

Codex is the npm package @openai/codex (Apache-2.0), in a folder below the virtual environment. Nothing of the user's
configuration is used: a test has an empty home.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.agent.model_server import ModelRequest, Say, Shell, Step

_CONFIG = """\
model = "stub"
model_provider = "stub"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.stub]
name = "stub"
base_url = "{url}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


def find_codex() -> Path | None:
    """Return the folder with the program ``codex``: that of tests/services.sh, or else one of the PATH."""
    installed = Path(sys.prefix) / "codex" / "node_modules" / ".bin" / "codex"
    found = str(installed) if installed.exists() else shutil.which("codex")
    return None if found is None or shutil.which("node") is None else Path(found).parent


def configure_codex(home: Path, url: str) -> None:
    """Write the configuration that makes Codex use the model at ``url``; it asks for no permission.

    Args:
        home: the agent's HOME.
        url: the base URL of a `ModelServer`.
    """
    folder = home / ".codex"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(_CONFIG.format(url=url), "utf-8")


def add_mcp_server(home: Path, name: str, command: Sequence[str], *, variables: Sequence[str] = ()) -> None:
    """Add an MCP server to the configuration; Codex waits until it has started.

    Args:
        home: the agent's HOME.
        name: the server's name.
        command: its command line.
        variables: the variables of Codex's environment that it gets; most are withheld from servers.
    """
    with open(home / ".codex" / "config.toml", "a", encoding="utf-8") as file:
        file.write(
            f"\n[mcp_servers.{name}]\ncommand = {json.dumps(command[0])}\nargs = {json.dumps(command[1:])}\n"
            f"env_vars = {json.dumps(variables)}\nrequired = true\nstartup_timeout_sec = 60\n"
        )


def write_named_file(request: ModelRequest) -> Step:
    """Answer "Write NAME." by having Codex write that file, in two steps."""
    found = re.search(r"Write (\S+)\.$", request.prompt.strip())
    if found is None:
        raise ValueError(f"the prompt names no file: {request.prompt!r}")
    return Say(f"{found[1]} is written.") if request.turn else Shell(f"echo the text of {found[1]} > {found[1]}")
