"""The tests of jobdb. The folder of a test says what it needs; see README.md in this folder."""
