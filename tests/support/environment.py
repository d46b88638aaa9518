"""The environment variables of the tests, and environments without those of the user.

jobdb reads JOBDB_*, MQTT_*, PG* and the folders of the user (HOME, XDG_*). A test must see none of the user's: it could
use the user's master key, add to the user's trusted databases, or publish to the user's broker.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

USER_ENVIRONMENT: Final = dict(os.environ)
"""The environment in which pytest was started; for programs that need the user's settings, such as pip."""

TEST_VARIABLES: Final = frozenset(
    {
        "JOBDB_REQUIRE_ALL",
        "JOBDB_INTERRUPT_STRIDE",
        "JOBDB_TORTURE_SEED",
        "JOBDB_PLAN_JOBS",
        "JOBDB_COPY_JOBS",
        "JOBDB_MODEL_EXAMPLES",
        "JOBDB_WHOLE_CONFORMANCE",
        "JOBDB_LEGACY_SAMPLE",
        "JOBDB_TEST_NFS",
        "JOBDB_NFS_ONLY",
        "JOBDB_NFS_ACCEL",
        "JOBDB_NFS_CACHE",
    }
)
"""Settings of the tests themselves, which every test keeps. tests/README.md explains them."""

_PREFIXES: Final = ("JOBDB_", "MQTT_", "PG", "XDG_")
_NAMES: Final = frozenset({"CREDENTIALS_DIRECTORY", "NO_COLOR", "FORCE_COLOR"})


def is_private(name: str) -> bool:
    """Return whether a variable of the user must not reach a test."""
    return (name.startswith(_PREFIXES) or name in _NAMES) and name not in TEST_VARIABLES


def clean_environment(home: Path, **variables: str) -> dict[str, str]:
    """Return a copy of the environment without the variables that jobdb reads, with HOME and ``variables`` set."""
    kept = {name: value for name, value in os.environ.items() if not is_private(name)}
    return {**kept, "HOME": str(home), **variables}
