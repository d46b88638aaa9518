"""Measure jobdb against the registry it replaces and against its peers: ``python -m benchmarks``."""
