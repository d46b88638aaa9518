"""Test whether a folder keeps the promises that a rollback journal needs: `jobdb probe`."""
