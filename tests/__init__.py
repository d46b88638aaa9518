"""The tests of jobdb. A test's folder says what the test needs; see README.md beside this file."""
