"""The folder of an old registry: its location and content, safe reading of its files, and its lock."""
