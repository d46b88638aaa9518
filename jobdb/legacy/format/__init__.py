"""The formats of the old registry: records, logs and audit files, parsed and rendered.

Called by the import, the export and the drop-in module. Pure: no file, no database; calls only ``core`` and ``model``.
"""
