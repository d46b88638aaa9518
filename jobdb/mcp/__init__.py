"""The MCP server: an agent works with the registry by tools, over its stdin and stdout.

Called by ``jobdb mcp``, which an agent starts. ``server.py`` speaks the protocol, through the official SDK, and alone
needs the extra ``jobdb[mcp]``; ``tools.py`` is the table of tools, ``verbs.py`` what they do, on an ``AsyncRegistry``.
"""
