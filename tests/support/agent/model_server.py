"""A stand-in for a model's API on loopback, so that a real agent runs without a network.

It speaks as much of the Responses wire format as the Codex command line needs, streamed as server-sent events. What the
model says is a Python function of the request: see `Plan`. `tests.support.agent.codex` points Codex to it.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_SHELL_TOOLS = ("exec_command", "shell_command", "shell")
_USAGE = {
    "input_tokens": 10,
    "output_tokens": 5,
    "total_tokens": 15,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


@dataclass(frozen=True, slots=True)
class Say:
    """The model's last message: the agent ends its turn."""

    text: str = "done"


@dataclass(frozen=True, slots=True)
class Shell:
    """The model asks the agent to run a command line."""

    command: str


@dataclass(frozen=True, slots=True)
class Call:
    """The model asks the agent to call one of its tools; a tool of an MCP server has a namespace."""

    name: str
    arguments: Mapping[str, Any]
    namespace: str | None = None


Step = Say | Shell | Call


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request of an agent to the model.

    Attributes:
        prompt: the text of the last message of the user.
        results: the outputs of the tools that were called since then, the oldest first.
        tools: the names of the tools that the agent offers.
    """

    prompt: str
    results: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    @property
    def turn(self) -> int:
        """Return how many tools were called since the prompt."""
        return len(self.results)


Plan = Callable[[ModelRequest], Step]
"""The model's answer. It is called in a thread of the request's own, and may wait."""


def scripted(*steps: Step) -> Plan:
    """Return a plan that answers the n-th request after a prompt with the n-th step, and then with the last one."""
    return lambda request: steps[min(request.turn, len(steps) - 1)]


class ModelServer:
    """The API, on a port that the system chooses. It serves until the end of the ``with`` block.

    Args:
        plan: what the model answers.

    Attributes:
        url: the base URL for agents.
        requests: what agents have asked, the oldest first.
        errors: what the plan raised; the agent got HTTP 500.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests: list[ModelRequest] = []
        self.errors: list[Exception] = []
        self._numbers = itertools.count(1)
        self._http = _Server(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)

    def answer(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the events that answer a request's body."""
        request = parse_request(body)
        self.requests.append(request)
        item = _output_item(self.plan(request), request, next(self._numbers))
        return list(_events(item))


def parse_request(body: Mapping[str, Any]) -> ModelRequest:
    """Read the body of a request: the prompt is the user's last message, what follows it are the tools' results."""
    prompt, results = "", list[str]()
    for item in body.get("input") or ():
        kind = item.get("type", "message")
        if kind == "message" and item.get("role") == "user":
            content = item.get("content") or ""
            prompt = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
            results = []
        elif kind.endswith("_output"):
            results.append(str(item.get("output", "")))
    return ModelRequest(prompt, tuple(results), tuple(_tool_names(body.get("tools") or ())))


def _tool_names(tools: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for tool in tools:
        yield str(tool.get("name") or tool.get("type"))


def _output_item(step: Step, request: ModelRequest, number: int) -> dict[str, Any]:
    """Return the item of the model's output that a step stands for; ids are unique for a server's life."""
    if isinstance(step, Say):
        text = {"type": "output_text", "text": step.text, "annotations": []}
        return {
            "type": "message",
            "id": f"msg_{number}",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }
    call = _shell_call(step.command, request.tools) if isinstance(step, Shell) else step
    item: dict[str, Any] = {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"call_{number}",
        "name": call.name,
        "arguments": json.dumps(call.arguments),
        "status": "completed",
    }
    return item if call.namespace is None else {**item, "namespace": call.namespace}


def _shell_call(command: str, tools: Sequence[str]) -> Call:
    """Return the call of the agent's shell; Codex has had three tools for it."""
    name = next((name for name in _SHELL_TOOLS if name in tools), None)
    if name is None:
        raise ValueError(f"the agent offers no shell: {', '.join(tools)}")
    arguments: dict[str, dict[str, Any]] = {
        # Codex yields to the model after ten seconds otherwise, and the model would have to ask again.
        "exec_command": {"cmd": command, "yield_time_ms": 30_000},
        "shell_command": {"command": command},
        "shell": {"command": ["bash", "-lc", command]},
    }
    return Call(name, arguments[name])


def _events(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a response with one item."""
    response = {"id": f"resp_{item['id']}", "object": "response", "model": "stub"}
    yield {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    done = {**response, "status": "completed", "output": [item], "usage": _USAGE}
    yield {"type": "response.completed", "response": done}


class _Server(ThreadingHTTPServer):
    """The HTTP server of a `ModelServer`. A connection that breaks off is no error: its agent was killed."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, model: ModelServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.model.errors.append(error if isinstance(error, Exception) else RuntimeError(repr(error)))


class _Handler(BaseHTTPRequestHandler):
    """One connection of an agent; it is closed after each answer, whose end that is."""

    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: the test's output is not the place for requests."""

    def do_GET(self) -> None:
        """Answer the list of models."""
        self._start("application/json")
        self.wfile.write(json.dumps({"object": "list", "data": [{"id": "stub", "object": "model"}]}).encode())

    def do_POST(self) -> None:
        """Answer what the model says, one event after the other."""
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        model = self.server.model
        try:
            events = model.answer(body)
        except Exception as error:
            model.errors.append(error)
            self.send_error(500, str(error))
            return
        self._start("text/event-stream")
        for event in events:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()

    def _start(self, content_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("connection", "close")
        self.end_headers()
