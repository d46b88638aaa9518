"""Import from the old registry of JSON files, export to it, and a drop-in for its Python module. See docs/migration.md.

Called by the command line and by applications. ``registry.py`` is the drop-in module that old scripts import; apart
from it, only the names in ``__all__`` are used from outside. Names are imported on first access, because a reader
process needs none of them and starts faster without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporting.exporter import export_registry
    from .exporting.ndjson_csv import write_lines
    from .importing.importer import import_registry
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

_HOMES = {
    "export_registry": "exporting.exporter",
    "import_registry": "importing.importer",
    "write_lines": "exporting.ndjson_csv",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES.get(name, 'report')}", __name__), name)
    globals()[name] = value
    return value
