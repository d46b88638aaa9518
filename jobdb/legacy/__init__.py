"""From the old registry of JSON files and back, and beside it. See docs/migration.md."""

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
