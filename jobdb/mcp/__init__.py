"""The MCP server: an agent works with the registry by tools, over its stdin and stdout.

Called by ``jobdb mcp``, which an agent starts. ``server.py`` speaks the protocol, through the official SDK;
``tools.py`` is the table of tools, ``verbs.py`` what they do, on an ``AsyncRegistry``. Needs the extra ``jobdb[mcp]``.
"""

from .own_job import OwnJob, own_job
from .server import serve

__all__ = ["OwnJob", "own_job", "serve"]
