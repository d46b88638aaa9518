"""Code that tests of several folders share. Import it as ``from tests.support.NAME import …``."""
