"""Clients of `jobdb mcp` in real processes: the SDK's, of either protocol, and one that sends lines.

Nothing here imports the SDK before a test has asked for it: without it, the tests are skipped.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import LineProcess
from tests.support.requirements import require_module

COMMAND = (sys.executable, "-m", "jobdb.cli")
HANDSHAKE, MODERN = "2025-11-25", "2026-07-28"
PROTOCOLS = (HANDSHAKE, MODERN)


def require_sdk() -> Any:
    return require_module("mcp", "jobdb[mcp]")


def server_environment(database: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a server on a SQLite database."""
    return {**os.environ, "JOBDB_URL": f"sqlite:///{database}", **variables}


@asynccontextmanager
async def connect(database: Path, protocol: str = HANDSHAKE, **variables: str) -> AsyncIterator[Any]:
    """Start a server and connect the SDK's client to it, with one version of the protocol."""
    sdk = require_sdk()
    from mcp.client.stdio import stdio_client

    parameters = sdk.StdioServerParameters(
        command=COMMAND[0],
        args=[*COMMAND[1:], "mcp"],
        env=server_environment(database, **variables),
        cwd=str(database.parent),
    )
    with open(database.parent / "mcp.err", "a") as errors:
        transport = stdio_client(parameters, errlog=errors)
        mode = "legacy" if protocol == HANDSHAKE else protocol
        async with sdk.Client(transport, mode=mode, read_timeout_seconds=90) as client:
            assert client.protocol_version == protocol
            yield client


async def tool(client: Any, name: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed; return its structured result, which its text repeats."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content[0].text
    found: dict[str, Any] = result.structured_content
    assert json.loads(result.content[0].text) == found
    return found


async def refused(client: Any, name: str, **arguments: Any) -> str:
    """Call a tool that must be refused; return what the agent is told."""
    result = await client.call_tool(name, arguments)
    assert result.is_error and result.structured_content is None, result.content
    text: str = result.content[0].text
    assert "Traceback" not in text and "registry." not in text and "'jobdb " not in text
    return text


class LineClient(LineProcess):
    """A client that sends what it is told, line by line; with the 2026 protocol there are no hands to shake."""

    def __init__(
        self, database: Path, protocol: str = HANDSHAKE, *, variables: Mapping[str, str] | None = None
    ) -> None:
        super().__init__([*COMMAND, "mcp"], env=server_environment(database, **(variables or {})))
        self._id = 0
        self._envelope: dict[str, Any] = {}
        if protocol == MODERN:
            names = ("protocolVersion", "clientInfo", "clientCapabilities")
            values = (protocol, {"name": "test", "version": "1"}, {})
            pairs = zip(names, values, strict=True)
            self._envelope = {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in pairs}}

    def shake_hands(self) -> dict[str, Any]:
        """Initialize the connection; return the server's answer."""
        information = {"name": "test", "version": "1"}
        answer = self.request(
            "initialize", {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": information}
        )
        self.notify("notifications/initialized")
        return answer

    def send_request(self, method: str, params: Mapping[str, Any]) -> int:
        """Send a request; return its id."""
        self._id += 1
        sent = {**params, **self._envelope}
        self.send(json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": sent}))
        return self._id

    def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request; return its result."""
        number = self.send_request(method, params)
        answer = self.read_answer()
        assert answer["id"] == number and "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def read_answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.read_line())
        return answer

    def notify(self, method: str, **params: Any) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))

    def send_call(self, name: str, **arguments: Any) -> int:
        """Call a tool, without reading the answer; return the id of the request."""
        return self.send_request("tools/call", {"name": name, "arguments": arguments})

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self.request("tools/call", {"name": name, "arguments": arguments})
