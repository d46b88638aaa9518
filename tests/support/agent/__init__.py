"""Agents for the tests of `jobdb work`: the real Codex on a model of our own, and programs that resist being ended."""
