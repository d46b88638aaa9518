"""The folder of an old registry: where it is, what lies in it, how its files are read safely, and its lock."""
