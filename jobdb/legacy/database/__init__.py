"""Imported jobs in the database: their rows as named tuples, and the records and logs rebuilt from them.

Called by the import, the export and the drop-in module; calls the engine's statements, the vault and the old formats,
and opens no file of an old registry.
"""
