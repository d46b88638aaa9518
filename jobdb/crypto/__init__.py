"""The vault, the master key, and how secrets are read in."""
