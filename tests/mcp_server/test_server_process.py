"""Test the process of `jobdb mcp`: what it prints, what it survives, and that it says when the SDK is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from jobdb import Registry
from tests.support.mcp_client import HANDSHAKE, LineClient, server_environment

CALL = '{"jsonrpc": "2.0", "id": 900, "method": "tools/call", "params": %s}'
HOSTILE_LINES = (
    "",
    "no JSON",
    "{",
    "[]",
    "null",
    "7",
    '{"jsonrpc": "2.0"}',
    '{"jsonrpc": "2.0", "method": 7}',
    '{"jsonrpc": "2.0", "id": {}, "method": "tools/call"}',
    '{"jsonrpc": "2.0", "method": "notifications/cancelled"}',
    '{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": []}}',
    '{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 10000}}',
    '{"jsonrpc": "2.0", "method": "notifications/unheard-of"}',
    '{"jsonrpc": "2.0", "id": 1, "result": {}}',
    '{"jsonrpc": "2.0", "id": 901, "method": "tools/call"}',
    CALL % '{"name": 7}',
    CALL % '{"name": "show", "arguments": [1]}',
    CALL % '{"name": "show", "arguments": {"job_id": "\\ud800"}}',
    CALL % '{"name": "claim", "arguments": {"wait_sec": NaN}}',
    '{"jsonrpc": "2.0", "id": 906, "method": "unheard/of", "params": {}}',
    "[" * 10_000,
)


def test_it_prints_answers_and_nothing_else(database: Path, registry: Registry) -> None:
    client = LineClient(database)
    answer = client.shake_hands()
    assert answer["protocolVersion"] == HANDSHAKE and answer["serverInfo"]["name"] == "jobdb"
    assert "claim a job" in answer["instructions"] and set(answer["capabilities"]) == {"tools"}
    assert client.close() == 0


def test_nothing_that_a_client_sends_ends_it(registry: Registry, start_client: Callable[..., LineClient]) -> None:
    client = start_client()
    for line in HOSTILE_LINES:
        client.send(line)
    number = client.send_call("list")
    answers = []
    while not answers or answers[-1].get("id") != number:
        answers.append(client.read_answer())
    assert answers[-1]["result"]["structuredContent"] == {"jobs": [], "next_after": None}
    assert all("error" in answer or answer["result"]["isError"] for answer in answers[:-1])
    assert client.close() == 0


def test_without_the_sdk_it_says_what_to_install(database: Path) -> None:
    code = "import sys; sys.modules['mcp'] = None; sys.argv = ['jobdb', 'mcp']; import jobdb.cli; jobdb.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=server_environment(database),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == (
        "jobdb: the MCP server needs the MCP SDK, which is not installed: pip install 'jobdb[mcp]'"
    )


def test_a_large_job_is_delivered_whole(registry: Registry, start_client: Callable[..., LineClient]) -> None:
    prompt = 'ü\u2028"\\\n' * 200_000
    registry.register(agent="a", prompt=prompt, job_id="one", extra={"deep": json.loads("[" * 50 + "]" * 50)})
    shown = start_client().call("show", job_id="one")["structuredContent"]["job"]
    assert shown == registry.get("one").as_dict() and shown["prompt"] == prompt
