"""Fixtures of the command line tests: runners of the real command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli_runner import CliRunner


@pytest.fixture(scope="session")
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "compiled"


@pytest.fixture
def cli_without_database(tmp_path: Path, _compiled: Path) -> Iterator[CliRunner]:
    """The command line without a database."""
    cli = CliRunner(tmp_path, _compiled)
    yield cli
    cli.stop()


@pytest.fixture
def cli(cli_without_database: CliRunner) -> CliRunner:
    """The command line with an empty database."""
    cli_without_database.create_database()
    return cli_without_database


@pytest.fixture(scope="module")
def module_cli(tmp_path_factory: pytest.TempPathFactory, _compiled: Path) -> CliRunner:
    """The command line with a database that all tests of a file share."""
    cli = CliRunner(tmp_path_factory.mktemp("shared"), _compiled)
    cli.create_database()
    return cli
