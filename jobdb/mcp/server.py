"""The server: speaks the protocol over stdin and stdout, through the official SDK, and runs the tools.

Called by ``jobdb mcp``; imports the SDK, and nothing below does. Both eras of the protocol are the SDK's to tell apart.
An error of a tool is a result that says so; nothing that a client sends ends the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Any

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    CancelledNotificationParams,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ToolEntry

from .. import __version__
from ..errors import JobdbError
from ..registry import AsyncRegistry
from .sentences import sentence
from .session import LOGGER, Session, current_request
from .tools import instructions, offered_tools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp.server.context import ServerRequestContext

    from ..registry import Registry
    from .own_job import OwnJob
    from .tool import Tool

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(registry: Registry, *, own: OwnJob | None, worker: str) -> None:
    """Serve one client on stdin and stdout until it closes stdin; close the registry.

    Args:
        registry: the open registry.
        own: the job that the server belongs to; None to offer all jobs.
        worker: the name with which it claims, up to 256 characters.
    """
    asyncio.run(_serve(AsyncRegistry(registry), own, worker))


async def _serve(registry: AsyncRegistry, own: OwnJob | None, worker: str) -> None:
    session = Session(registry, own_job=own, worker=worker)
    server = make_server(session)
    stopping: list[asyncio.Task[None]] = []

    def stop(number: int) -> None:
        stopping.append(asyncio.ensure_future(_stop(registry, number)))

    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    async with registry, stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())


async def _stop(registry: AsyncRegistry, number: int) -> None:
    """End the process: what was claimed for a request that is not answered yet is released first.

    A thread waits for the next line on stdin, which nothing can interrupt, so the event loop would not end.
    """
    try:
        await registry.aclose(checkpoint=False)
    finally:
        os._exit(128 + number)


def make_server(session: Session) -> Server[Any]:
    """Return a server of the SDK with the tools that the session's job allows."""
    tools = offered_tools(session.own_job)

    async def list_tools(ctx: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_entry(tool) for tool in tools.values()])

    async def call_tool(ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        current_request.set(str(ctx.request_id))
        return await call(session, tools, params.name, params.arguments or {})

    async def cancelled(ctx: ServerRequestContext[Any], params: CancelledNotificationParams) -> None:
        if params.request_id is not None:
            await session.cancel(str(params.request_id))

    server: Server[Any] = Server(
        "jobdb",
        version=__version__,
        instructions=instructions(session.own_job),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    server.add_notification_handler("notifications/cancelled", CancelledNotificationParams, cancelled)
    return server


def _entry(tool: Tool) -> ToolEntry:
    return ToolEntry(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        output_schema=tool.result,
        annotations=ToolAnnotations(read_only_hint=tool.is_read_only, open_world_hint=False),
    )


async def call(session: Session, tools: Mapping[str, Tool], name: str, arguments: Mapping[str, Any]) -> CallToolResult:
    """Run a tool; an error becomes a result that says so."""
    tool = tools.get(name)
    if tool is None:
        why = "" if session.own_job is None else "; it offers only what concerns its own job"
        return _failed(f"there is no tool {name!r:.80} in this server{why}; its tools: {', '.join(tools)}")
    try:
        result = await tool(session, arguments)
    except JobdbError as error:
        return _failed(sentence(error, tools))
    except Exception:
        LOGGER.exception("the tool %s failed", name)  # to stderr; what it says is not for the model
        return _failed(f"the tool {name} failed inside jobdb; nothing is allowed by that, and its log says more")
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=result)


def _failed(message: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=message)], is_error=True)
