"""MkDocs hooks that copy the files of schema/ to which pages link, because they are outside docs/, into the site.

Called by MkDocs (``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_SCHEMA = Path(__file__).parent.parent / "schema"
_LINK = re.compile(r"\]\((?:\.\./)+schema/([\w.-]+\.json)\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the JSON Schemas and the protocol's vectors to the site."""
    for path in sorted(_SCHEMA.glob("*.json")):
        files.append(File.generated(config, f"schema/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_more: Any) -> str:
    """Make links to these files lead to their copies in the site."""
    up = "../" * page.file.src_uri.count("/")
    return _LINK.sub(rf"]({up}schema/\1)", markdown)
