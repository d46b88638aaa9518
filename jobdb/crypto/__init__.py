"""Secrets: the vault that seals them, the master key, and the input of secrets."""
