"""MkDocs hooks that add files outside docs/ to the site: those of schema/ that pages link to, and ARCHITECTURE.md.

Called by MkDocs (``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_ROOT = Path(__file__).parent.parent
_ARCHITECTURE = "ARCHITECTURE.md"
_SCHEMA = _ROOT / "schema"
_SCHEMA_LINK = re.compile(r"\]\((?:\.\./)+schema/([\w.-]+\.json)\)")


def on_files(files: Any, *, config: Any) -> Any:
    """Add the JSON Schemas, the protocol's vectors and the architecture page to the site."""
    for path in sorted(_SCHEMA.glob("*.json")):
        files.append(File.generated(config, f"schema/{path.name}", abs_src_path=str(path)))
    architecture = (_ROOT / _ARCHITECTURE).read_text("utf-8").replace("](docs/", "](")
    files.append(File.generated(config, _ARCHITECTURE, content=architecture))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_more: Any) -> str:
    """Make links to these files lead to their copies in the site."""
    up = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace(f"](../{_ARCHITECTURE})", f"]({_ARCHITECTURE})")
    return _SCHEMA_LINK.sub(rf"]({up}schema/\1)", markdown)
