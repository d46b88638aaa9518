"""The documented commands and fields, for tests that compare it with what commands print."""

from __future__ import annotations

import re

from tests.support.paths import ROOT


def documented_fields(title: str) -> list[str]:
    """Return the fields that the page on JSON output lists under a title, in order."""
    page = (ROOT / "docs" / "reference" / "json-output.md").read_text()
    section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
