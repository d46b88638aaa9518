"""Measures jobdb beside the ways it replaces and its peers: ``python -m benchmarks``."""
