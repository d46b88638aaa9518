"""From the old registry of JSON files and back, and beside it. See docs/migration.md.

Names are imported when they are first asked for: a reading process needs none of them, and starts the sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporter import export_registry
    from .importer import import_registry
    from .lines import write_lines
    from .report import ExportReport, ImportReport, Outcome, ReportRow

__all__ = [
    "ExportReport",
    "ImportReport",
    "Outcome",
    "ReportRow",
    "export_registry",
    "import_registry",
    "write_lines",
]

_HOMES = {"export_registry": "exporter", "import_registry": "importer", "write_lines": "lines"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES.get(name, 'report')}", __name__), name)
    globals()[name] = value
    return value
