"""The import of an old registry: read, normalize, plan, write, verify. Begins in ``importer.py``."""
