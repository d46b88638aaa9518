"""The folder of an old registry: its location and content, safe reading of its files, and its lock.

Called by the import, the export and the drop-in module; parses nothing and knows no database.
"""
