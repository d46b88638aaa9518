"""The kernel's FUSE protocol and mounting, shared by the file systems of the tests."""
