"""Secrets: the vault that seals them, the master key, and reading secrets that a person gives."""
