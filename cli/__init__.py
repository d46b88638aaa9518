"""The jobdb command."""
